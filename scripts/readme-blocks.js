// Runs or checks every fenced block of README.md, CONTRIBUTING.md and docs/, page by page, each page against a registry of its own:
//
//   js, ts, py   programs that must exit with code 0; a name (`client.js`) makes one importable for later blocks; with `listen` it is a
//                server, which is started, requested and stopped. TypeScript is type-checked. A `ts` block of types only is
//                type-checked and compared with the schemas of frames
//   sh           run by one bash per page; with `check` not run, but its scripts, files and settings must exist
//   http         a request and the response to expect
//   json         parsed, whole or line by line; frames are validated
//   env          read as the stand-alone server reads it
//   text output  the expected output of the previous block; `…` matches any text
//   text mermaid are free
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseEnv } from 'node:util'
import { optionsFromEnv, ServerSettingsSchema, settingsOf } from '../dist/src/server/env.js'
import { OptionsSchema } from '../dist/src/options.js'
import { asyncapiDocument } from './asyncapi-document.js'
import { createFrameChecks, isDeclarations } from './blocks/frames.js'
import { runHttp } from './blocks/http.js'
import { checkTypes, hasPython, isProgram, programFolder, runProgram, writeProgram } from './blocks/programs.js'
import { checkCommands, startShell } from './blocks/shell.js'
import { blocksOf } from './markdown.js'
import { adminPassword, agentKey, root, script, startRegistry } from './support.js'

const secretKey = 'back-end:a-secret-of-the-scripts'
const settings = [OptionsSchema, ServerSettingsSchema].flatMap(schema => settingsOf(schema))
const variables = new Set([...settings.flatMap(({ names }) => names), 'NODE_ENV', 'REGISTRY_URL', 'AGENT_KEY'])

function pages () {
  const below = readdirSync(join(root, 'docs'), { recursive: true }).filter(name => name.endsWith('.md')).sort()
  return ['README.md', 'CONTRIBUTING.md', ...below.map(name => join('docs', name))]
}

function escapeRegExp (text) {
  return text.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')
}

function compareOutput (expected, output) {
  const pattern = expected.trim().split('…').map(escapeRegExp).join('[^]*')
  const actual = output.replaceAll(/[ \t]+$/gm, '').trim()
  if (!new RegExp(`^${pattern}$`).test(actual)) throw new Error(`the previous block printed\n${actual}`)
}

function parseValues (code) {
  try {
    return [JSON.parse(code)]
  } catch {
    return code.trim().split('\n').map(line => JSON.parse(line))
  }
}

function checkEnv (code) {
  const values = parseEnv(code)
  const unknown = Object.keys(values).filter(name => !variables.has(name))
  if (unknown.length > 0) throw new Error(`unknown settings: ${unknown.join(', ')}`)
  optionsFromEnv(values)
}

/** Runs the blocks of one page. Starts each service with the first block that needs it. */
class Page {
  #frames
  #environment
  #registry
  #shell
  #folder = programFolder()
  #variables
  #files
  #output = ''
  counts = {}

  constructor (frames) {
    this.#frames = frames
  }

  /** Writes all programs, since earlier ones may import later ones, and checks the types of all at once. */
  async prepare (blocks) {
    const isTypes = ({ language, code }) => language === 'ts' && isDeclarations(code)
    this.#files = blocks.map((block, index) => isProgram(block) && !isTypes(block) ? writeProgram(this.#folder, block, index) : undefined)
    const types = blocks.filter(isTypes).map(({ code }) => code).join('\n')
    if (types !== '') writeFileSync(join(this.#folder, 'types-of-page.ts'), this.#frames.withTypes(types))
    if (blocks.some(({ language }) => language === 'ts')) await checkTypes(this.#folder)
  }

  async #env () {
    this.#registry ??= await startRegistry({ SECRET_KEYS: secretKey })
    this.#environment ??= { REGISTRY_URL: this.#registry.url, AGENT_KEY: agentKey, ADMIN_PASSWORD: adminPassword, SECRET_KEY: secretKey }
    return this.#environment
  }

  async #runShell ({ code, marks }) {
    if (marks.includes('check')) return checkCommands(code, name => variables.has(name))
    this.#shell ??= startShell(await this.#env())
    this.#output = await this.#shell.run(code)
  }

  async #runProgram (block, index) {
    if (block.language === 'py' && !hasPython()) {
      if (process.env.CI === 'true') throw new Error('python3 is missing')
      console.log('  python3 is missing: block skipped')
      return
    }
    if (block.language === 'ts' && isDeclarations(block.code)) return this.#frames.checkDeclarations(block.code)
    this.#output = await runProgram(this.#files[index], block, await this.#env())
  }

  async #runHttp ({ code }) {
    this.#variables ??= { ...await this.#env() }
    this.#output = await runHttp(code, this.#registry.url, this.#variables)
  }

  async run (block, index) {
    const { language, code, marks } = block
    const kinds = {
      sh: () => this.#runShell(block),
      js: () => this.#runProgram(block, index),
      ts: () => this.#runProgram(block, index),
      py: () => this.#runProgram(block, index),
      http: () => this.#runHttp(block),
      json: async () => { for (const value of parseValues(code)) await this.#frames.checkFrame(value) },
      env: () => checkEnv(code),
      text: () => marks.includes('output') && compareOutput(code, this.#output),
      mermaid: () => {}
    }
    if (!Object.hasOwn(kinds, language)) throw new Error(`blocks in the language '${language}' cannot be checked`)
    await kinds[language]()
    this.counts[language] = (this.counts[language] ?? 0) + 1
  }

  async end () {
    await this.#shell?.end()
    await this.#registry?.stop()
  }
}

async function runPage (name, frames) {
  const page = new Page(frames)
  const blocks = blocksOf(readFileSync(join(root, name), 'utf8'))
  await page.prepare(blocks)
  for (const [index, block] of blocks.entries()) {
    try {
      await page.run(block, index)
    } catch (error) {
      throw new Error(`${name}:${block.line}: ${error.message}`)
    }
  }
  await page.end()
  console.log(`  ${name}: ${Object.entries(page.counts).map(([language, count]) => `${count} ${language}`).join(', ') || 'no blocks'}`)
}

await script('readme-blocks', async function runBlocks () {
  const frames = createFrameChecks(await asyncapiDocument())
  for (const name of process.argv.length > 2 ? process.argv.slice(2) : pages()) await runPage(name, frames)
})
