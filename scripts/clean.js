// Empties dist/, so that the package contains no output of files deleted from src/.
import { rmSync } from 'node:fs'

rmSync(new URL('../dist', import.meta.url), { recursive: true, force: true })
