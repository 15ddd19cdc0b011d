// Copies the Lua scripts next to the compiled modules that read them: tsc copies only what it compiles.
import { cpSync } from 'node:fs'

const folder = 'src/storage/redis/scripts'

cpSync(new URL(`../${folder}`, import.meta.url), new URL(`../dist/${folder}`, import.meta.url), { recursive: true })
