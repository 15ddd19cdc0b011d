// Runs the blocks of documents that are marked `sh run`, `ts run` or `js run`, in their order, against a registry of each document.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { adminPassword, agentKey, makeFolder, root, run, script, startRegistry, transpileFile } from './support.js'

const documents = ['README.md', 'docs/messaging.md']
const secretKey = 'back-end:a-secret-of-the-scripts'

/** A name after the mark is that of a file, which later programs of the document import. */
function blocksOf (text) {
  return [...text.matchAll(/^```(sh|ts|js) run(?: (\S+))?\n([^]*?)^```$/gm)].map(([, language, name, code]) => ({ language, name, code }))
}

function environment (url) {
  return { REGISTRY_URL: url, AGENT_KEY: agentKey, ADMIN_PASSWORD: adminPassword, SECRET_KEY: secretKey }
}

/** The blocks share one session: variables and functions of an earlier one are there in a later one. */
async function runShell (blocks, env) {
  const input = blocks.map(({ code }) => `set -x\n${code}\n{ set +x; } 2>/dev/null\n`).join('')
  return run('bash', ['-euo', 'pipefail'], { cwd: makeFolder('shell'), env, input: `PATH="${join(root, 'node_modules/.bin')}:$PATH"\n${input}` })
}

async function checkTypes (folder) {
  const compilerOptions = { noEmit: true, rootDir: root, typeRoots: [join(root, 'node_modules/@types')] }
  const config = { extends: '../tsconfig.json', compilerOptions, include: ['*.ts'] }
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(config))
  await run(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', folder])
}

function writePrograms (folder, blocks) {
  return blocks.map(({ language, name, code }, index) => {
    const path = join(folder, name?.replace(/\.[jt]s$/, '') ?? `block-${index + 1}`)
    writeFileSync(`${path}.${language}`, code)
    if (language === 'ts') transpileFile(`${path}.ts`, `${path}.js`)
    return `${path}.js`
  })
}

async function runPrograms (blocks, env) {
  const folder = makeFolder('readme', true)
  const files = writePrograms(folder, blocks)
  if (blocks.some(({ language }) => language === 'ts')) await checkTypes(folder)
  for (const [index, file] of files.entries()) {
    console.log(`${blocks[index].code}\n${await run(process.execPath, [file], { env: { ...env, PORT: '0' }, timeoutMs: 60_000 })}`)
  }
}

async function runDocument (name) {
  const blocks = blocksOf(readFileSync(join(root, name), 'utf8'))
  const shell = blocks.filter(({ language }) => language === 'sh')
  const programs = blocks.filter(({ language }) => language !== 'sh')
  const registry = await startRegistry({ SECRET_KEYS: secretKey })
  if (shell.length > 0) console.log(await runShell(shell, environment(registry.url)))
  if (programs.length > 0) await runPrograms(programs, environment(registry.url))
  await registry.stop()
  console.log(`  ${name}: ${shell.length} shell blocks, ${programs.length} programs`)
}

await script('readme-blocks', async function runBlocks () {
  for (const name of process.argv.length > 2 ? process.argv.slice(2) : documents) await runDocument(name)
})
