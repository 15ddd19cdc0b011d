// Copies the Lua scripts next to the compiled modules that read them: tsc copies only what it compiles. Takes the output
// folder of tsc as its argument (default: dist).
import { cpSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './support.js'

const [output = join(root, 'dist')] = process.argv.slice(2)
const folder = 'src/storage/redis/scripts'

cpSync(join(root, folder), join(output, folder), { recursive: true })
