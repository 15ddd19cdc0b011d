// Packs the package, installs it into an empty app and tests it there: ESM, CommonJS, sockets, the command and the types.
// Tests the sockets a second time with the oldest ws that @fastify/websocket supports.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { begin, makeFolder, ownStorage, root, run, script, startedLine, stop, waitForOutput } from './support.js'

const wanted = /^package\/(package\.json|(README|CHANGELOG)\.md|LICENSE|docs\/.+\.(md|svg)|dist\/(src|plugins|routes)\/.+\.(js|d\.ts|lua))$/
const required = [
  'package.json', 'README.md', 'LICENSE', 'CHANGELOG.md', 'dist/src/index.js', 'dist/src/index.d.ts', 'dist/src/server/main.js',
  'dist/src/storage/redis/scripts/register.lua'
]

const useIt = `
const app = fastify()
await app.register(agentRegistry)
const { statusCode, body } = await app.inject('/public/stats')
if (statusCode !== 200) throw new Error('GET /public/stats: ' + statusCode + ' ' + body)
JSON.parse(body)
await app.close()
`

const programs = {
  'esm.mjs': `import fastify from 'fastify'
import agentRegistry from 'fastify-agent-registry'
${useIt}`,
  'cjs.cjs': `const fastify = require('fastify')
const agentRegistry = require('fastify-agent-registry')
if (typeof agentRegistry !== 'function' || agentRegistry.default !== agentRegistry) throw new Error('require() does not return the plugin')
async function main () {${useIt}}
main().catch(error => { console.error(error); process.exit(1) })
`,
  // With an unknown version of ws the registry warns, and clients still receive their frames.
  'sockets.mjs': `import { Writable } from 'node:stream'
import { once } from 'node:events'
import fastify from 'fastify'
import agentRegistry from 'fastify-agent-registry'
import { WebSocket } from 'ws'
const warnings = []
const stream = new Writable({ write (line, _encoding, done) { warnings.push(String(line)); done() } })
const app = fastify({ logger: { level: 'warn', stream } })
await app.register(agentRegistry)
const url = (await app.listen({ port: 0, host: '127.0.0.1' })).replace('http', 'ws')
const count = 100
const numbers = Array.from({ length: count }, (_, n) => String(n))
for (const protocols of [[], ['agent-registry.msgpack']]) {
  const socket = new WebSocket(url + '/public/ws', protocols)
  const frames = []
  socket.on('message', data => frames.push(String(data)))
  await once(socket, 'open')
  for (const requestId of numbers) socket.send(JSON.stringify({ type: 'ping', requestId }))
  socket.send('ping')
  while (frames.at(-1) !== 'pong') await once(socket, 'message')
  if (frames.length !== count + 2) throw new Error('received ' + frames.length + ' frames')
  const wrong = numbers.filter((requestId, n) => !frames[n + 1].includes(requestId) || !frames[n + 1].includes('pong'))
  if (wrong.length > 0) throw new Error('wrong replies to ' + wrong)
  socket.close()
  await once(socket, 'close')
}
await app.close()
const slow = warnings.filter(line => line.includes('frames are sent one by one'))
if (slow.length > 0) throw new Error(slow.join(''))
`,
  'types.ts': `import fastify from 'fastify'
import agentRegistry, { type AgentRegistryOptions } from 'fastify-agent-registry'

const options: AgentRegistryOptions = { agentKeys: ['types-test-key'], lease: { durationMs: 5000 } }
const app = fastify()
await app.register(agentRegistry, options)
type Registration = Parameters<typeof app.agentRegistry.register>[0]
export async function register (registration: Registration): Promise<void> {
  await app.agentRegistry.register(registration)
}
`,
  'tsconfig.json': JSON.stringify({
    compilerOptions: {
      module: 'nodenext',
      target: 'es2023',
      lib: ['es2023'],
      strict: true,
      noEmit: true,
      types: ['node'],
      typeRoots: [join(root, 'node_modules/@types')]
    },
    files: ['types.ts']
  })
}

async function pack (folder) {
  const output = await run('npm', ['pack', '--silent', '--pack-destination', folder])
  return join(folder, output.trim().split('\n').at(-1))
}

async function checkFiles (tarball) {
  const files = (await run('tar', ['-tzf', tarball])).trim().split('\n')
  const unwanted = files.filter(file => !wanted.test(file))
  const missing = required.filter(file => !files.includes(`package/${file}`))
  if (unwanted.length > 0) throw new Error(`the package contains unexpected files: ${unwanted.join(', ')}`)
  if (missing.length > 0) throw new Error(`the package lacks files: ${missing.join(', ')}`)
  console.log(`  ${files.length} files`)
}

const versionIn = (folder, name) => JSON.parse(readFileSync(join(folder, 'node_modules', name, 'package.json'), 'utf8')).version

/** The oldest ws that @fastify/websocket supports. It has known vulnerabilities, so npm installs it only with an override. */
const oldestWs = '8.16.0'

async function install (tarball, folder, settings = []) {
  mkdirSync(folder)
  const version = versionIn(root, 'fastify')
  await run('npm', ['init', '-y'], { cwd: folder })
  await run('npm', ['pkg', 'set', 'type=module', ...settings], { cwd: folder })
  const install = ['install', '--no-audit', '--no-fund', '--prefer-offline', tarball, `fastify@${version}`]
  await run('npm', install, { cwd: folder, timeoutMs: 300_000 })
  for (const [name, text] of Object.entries(programs)) writeFileSync(join(folder, name), text)
}

async function checkCommand (cwd) {
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  const printed = await run('npx', ['fastify-agent-registry', '--version'], { cwd })
  if (!printed.split('\n').includes(version)) throw new Error(`--version printed ${printed}`)
  const env = { HOST: '', ARCP_HOST: '', ARCP_PORT: '', PORT: '0', NODE_ENV: '', ...ownStorage }
  const server = begin(join(cwd, 'node_modules/.bin/fastify-agent-registry'), [], { cwd, env })
  const [, url] = await waitForOutput(server, startedLine)
  const { status } = await fetch(`${url}/public/stats`)
  if (status !== 200) throw new Error(`GET /public/stats of the started server returned ${status}`)
  await stop(server)
}

await script('pack-test', async function packTest () {
  const folder = makeFolder('pack')
  const tarball = await pack(folder)
  await checkFiles(tarball)
  // The folder's name becomes the name of the app, so it must be a valid package name.
  const app = join(folder, 'app')
  const oldApp = join(folder, 'old-app')
  await install(tarball, app)
  await install(tarball, oldApp, [`overrides.ws=${oldestWs}`])
  if (versionIn(oldApp, 'ws') !== oldestWs) throw new Error(`ws ${versionIn(oldApp, 'ws')} was installed`)
  const steps = {
    'import from ESM': () => run(process.execPath, ['esm.mjs'], { cwd: app }),
    'require from CommonJS': () => run(process.execPath, ['cjs.cjs'], { cwd: app }),
    [`sockets over ws ${versionIn(app, 'ws')}`]: () => run(process.execPath, ['sockets.mjs'], { cwd: app }),
    [`sockets over ws ${oldestWs}`]: () => run(process.execPath, ['sockets.mjs'], { cwd: oldApp }),
    'the command': () => checkCommand(app),
    'the types': () => run(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', app])
  }
  for (const [name, step] of Object.entries(steps)) {
    await step()
    console.log(`  ${name}`)
  }
})
