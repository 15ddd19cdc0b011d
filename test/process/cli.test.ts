import { once } from 'node:events'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { join, resolve } from 'node:path'
import t, { type Test } from 'tap'
import { WebSocket } from 'ws'
import { describeFailure, withPassword } from '../../src/server/cli.js'
import { optionsFromEnv, type Environment } from '../../src/server/env.js'
import { password, secret } from '../support/harness.js'
import { builtServer, call, sourceArgs, start as startProcess, urlOf } from '../support/server-process.js'

const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string }
/** Uses the loaders of this process, so that coverage includes the child process. */
const source = [...sourceArgs, resolve('src/server/main.ts')]
const built = [builtServer(t)]

/** Starts the server as a process in `folder`, which ends with the test. */
function start (
  t: Test, folder: string, { env, args = [], program = built }: { env?: Environment, args?: string[], program?: string[] } = {}
) {
  return startProcess(t, folder, { env: env ?? {}, args: [...program, ...args] })
}

t.test('cli: flags set the options', async t => {
  for (const flag of ['--help', '-h']) {
    const { code, out, err } = await call([flag])
    t.same([code, err], [0, ''], flag)
    t.match(out, /^Usage: fastify-agent-registry \[--help\] \[--version\]\n/)
  }
  for (const flag of ['--version', '-v']) t.same(await call([flag]), { code: 0, out: `${version}\n`, err: '' }, flag)
  for (const wrong of ['--port', '-x', 'start', '--help=yes']) {
    const { code, out, err } = await call([wrong])
    t.same([code, out], [1, ''], wrong)
    t.match(err, /^fastify-agent-registry: .+\n$/)
  }
})

t.test('cli: flags take precedence over environment variables', async t => {
  t.equal((await call(['--version'], { PORT: 'wrong' })).code, 0)
})

t.test('cli: an invalid environment is refused with every invalid variable listed', async t => {
  const { code, out, err } = await call([], { PORT: 'http', AGENT_HEARTBEAT_TIMEOUT: '0.1', JWT_SECRET: 'hunter2' })
  t.same([code, out], [1, ''])
  t.match(err, /^ {2}PORT: 'http' is not a number\. Expected: .+$/m)
  t.match(err, /^ {2}AGENT_HEARTBEAT_TIMEOUT: '0\.1' is too small, the minimum is 0\.2\. Expected: .+ \(s\)$/m)
  t.match(err, /^ {2}JWT_SECRET: the value is shorter than 32 characters\. /m)
  t.notMatch(err, /hunter2/)
})

t.test('cli: errors that only the start detects are reported too', async t => {
  const { code, err } = await call([], { PORT: '0', BLOCKED_IPS: 'everybody', LOG_LEVEL: 'silent', ARCP_DATA_DIR: t.testdir() })
  t.equal(code, 1)
  t.match(err, /addresses\.blocked: 'everybody' is neither an address nor a CIDR range/)
})

t.test('cli: production refuses to start without a secret and a password', async t => {
  const { code, err } = await call([], { NODE_ENV: 'production', PORT: '0' })
  t.equal(code, 1)
  t.match(err, /JWT_SECRET: is missing, and NODE_ENV is production/)
  t.match(err, /ADMIN_PASSWORD: is missing, and NODE_ENV is production/)
})

t.test('cli: a missing password is generated, a different one at each start', async t => {
  const first = withPassword(optionsFromEnv({ ADMIN_USERNAME: 'root' }))
  const second = withPassword(optionsFromEnv({}))
  t.match(first, { generated: /^[\w-]{20}$/, settings: { options: { admin: { username: 'root', password: first.generated } } } })
  t.not(first.generated, second.generated)
  t.equal(first.settings.options.jwt, undefined, 'the token secret is stored with the data')
  const given = withPassword(optionsFromEnv({ ADMIN_PASSWORD: password, JWT_SECRET: secret, ADMIN_USERNAME: 'root' }))
  t.match(given, { made: null, settings: { options: { admin: { username: 'root', password }, jwt: { secret } } } })
})

t.test('cli: a failed start logs one line that names the variable to change', async t => {
  const place = { host: '10.0.0.1', port: 80 }
  const table: Array<[error: unknown, expected: RegExp]> = [
    [{ code: 'EADDRINUSE' }, /^port 80 on 10\.0\.0\.1 is in use: set ARCP_PORT/],
    [{ code: 'EACCES' }, /^port 80 on 10\.0\.0\.1 requires privileges: set ARCP_PORT/],
    [{ code: 'EADDRNOTAVAIL' }, /^the address 10\.0\.0\.1 does not belong to this machine: set ARCP_HOST/],
    [{ code: 'ENOTFOUND' }, /^the address 10\.0\.0\.1 does not belong to this machine/],
    [new Error('anything else'), /^anything else$/],
    ['without an error', /^without an error$/]
  ]
  for (const [error, expected] of table) t.match(describeFailure(error, place), expected)
  t.equal(describeFailure(Object.assign(new Error('.env: permission denied'), { code: 'EACCES' })), '.env: permission denied')
})

t.test('cli: a port in use ends the start', async t => {
  const other = createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  t.teardown(() => other.close())
  const { port } = other.address() as AddressInfo
  for (const program of [built, source]) {
    const { code, out, err } = await start(t, t.testdir(), { program, env: { PORT: String(port), LOG_LEVEL: 'silent' } }).ended
    t.same([code, out], [1, ''])
    t.equal(err, `fastify-agent-registry: port ${port} on 127.0.0.1 is in use: set ARCP_PORT (or PORT) to another port\n`)
  }
})

t.test('cli: an address of another machine ends the start', async t => {
  const { code, err } = await start(t, t.testdir(), { env: { PORT: '0', HOST: '192.0.2.1', LOG_LEVEL: 'silent' } }).ended
  t.equal(code, 1)
  t.match(err, /the address 192\.0\.2\.1 does not belong to this machine/)
})

t.test('cli: the process run from source listens, answers, drains its sockets and exits with 0', async t => {
  await checkServer(t, source)
})

t.test('cli: the built process listens, answers, drains its sockets and exits with 0', async t => {
  await checkServer(t, built)
})

async function checkServer (t: Test, program: string[]) {
  const started = start(t, t.testdir(), { program, env: { PORT: '0', WEBSOCKET_DRAIN: '0.3' } })
  const url = await urlOf(started)
  t.equal((await fetch(`${url}/health/ready`)).status, 200)
  t.match(started.output(), new RegExp(`^ {2}public tier: ${url.replace('http', 'ws')}/public/ws$`, 'm'))
  t.match(started.output(), new RegExp(`^ {2}agents tier: ${url.replace('http', 'ws')}/agents/ws$`, 'm'))
  t.match(started.output(), new RegExp(`^ {2}dashboard tier: ${url.replace('http', 'ws')}/dashboard/ws$`, 'm'))
  t.match(started.output(), new RegExp(`^ {2}docs: ${url}/docs$`, 'm'))
  const [, made] = /^admin password \(generated for this run\): (\S+)$/m.exec(started.output()) ?? []
  t.equal(await loginStatus(url, made), 200)

  const socket = new WebSocket(`${url.replace('http', 'ws')}/public/ws`)
  const frames: string[] = []
  socket.on('message', data => { frames.push((JSON.parse(String(data)) as { type: string }).type) })
  const closed = once(socket, 'close')
  await once(socket, 'open')
  started.child.kill('SIGTERM')
  t.equal((await closed)[0], 1001)
  t.ok(frames.includes('going_away'))
  const { code, signal, out } = await started.ended
  t.same([code, signal], [0, null])
  t.equal(out.split(made!).length, 2, 'the password is printed once')
}

async function loginStatus (url: string, password = ''): Promise<number> {
  const headers = { 'content-type': 'application/json', 'x-client-fingerprint': 'test' }
  return (await fetch(`${url}/auth/login`, { method: 'POST', headers, body: JSON.stringify({ username: 'admin', password }) })).status
}

t.test('cli: the server listens within two seconds', async t => {
  const begun = performance.now()
  await urlOf(start(t, t.testdir(), { env: { PORT: '0', LOG_LEVEL: 'silent' } }))
  // The server is expected within two seconds on an idle machine; here other tests run at the same time.
  t.ok(performance.now() - begun < 10_000)
})

t.test('cli: .env is read from the working directory, and environment variables take precedence', async t => {
  const folder = t.testdir(
    { '.env': `PORT=0\nARCP_PREFIX=/from-file\nADMIN_PASSWORD="${password}"\nLOG_LEVEL=silent\nARCP_ROUTES_DOCS=false\n` }
  )
  const started = start(t, folder, { env: { ARCP_PREFIX: '/from-environment' } })
  const url = await urlOf(started)
  t.equal((await fetch(`${url}/from-environment/health`)).status, 200)
  t.notMatch(started.output(), /admin password|docs:/, 'no password was generated, and the docs are off')
  t.equal(await loginStatus(`${url}/from-environment`, password), 200)
  started.child.kill('SIGINT')
  t.equal((await started.ended).code, 0, 'Ctrl+C ends the process too')
})

t.test('cli: an unreadable .env ends the start', async t => {
  const folder = t.testdir()
  mkdirSync(join(folder, '.env'))
  t.chdir(folder)
  const { code, err } = await call([], { PORT: '0' })
  t.equal(code, 1)
  t.match(err, /^fastify-agent-registry: EISDIR/)
})

t.test('cli: a wrong value in .env ends the start as one in a variable does', async t => {
  const folder = t.testdir()
  writeFileSync(join(folder, '.env'), 'PORT=everywhere\n')
  t.chdir(folder)
  const { code, err } = await call([])
  t.equal(code, 1)
  t.match(err, /PORT: 'everywhere' is not a number/)
})

t.test('cli: an uncaught error is logged and ends the server', async t => {
  const folder = t.testdir({ 'fail.mjs': 'process.once("SIGUSR2", () => { throw new Error("nobody caught this") })' })
  const program = [...source.slice(0, -1), '--import', join(folder, 'fail.mjs'), source.at(-1)!]
  const started = start(t, folder, { program, env: { PORT: '0', ADMIN_PASSWORD: password } })
  await urlOf(started)
  started.child.kill('SIGUSR2')
  const { code, out } = await started.ended
  t.equal(code, 1)
  t.match(out, /nobody caught this/)
})
