import { existsSync, readdirSync, realpathSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { Environment } from '../../src/server/env.js'
import { fingerprint, keys, password, registration, type Json } from '../support/harness.js'
import { builtServer, start as startProcess, urlOf } from '../support/server-process.js'

const built = builtServer(t)
const settings = { PORT: '0', LOG_LEVEL: 'silent', ADMIN_PASSWORD: password, AGENT_KEYS: keys.plain, WEBSOCKET_DRAIN: '0.1' }

/** The built server in `folder`, with nothing said of where its data is. */
function start (t: Test, folder: string, env: Environment = {}) {
  return startProcess(t, folder, { args: [built], env: { ...settings, ...env } })
}

async function call (url: string, path: string, { token, body }: { token?: string, body?: object } = {}): Promise<{ status: number, body: Json }> {
  const headers = { 'x-client-fingerprint': fingerprint, 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) }
  const response = await fetch(url + path, { headers, ...(body && { method: 'POST', body: JSON.stringify(body) }) })
  return { status: response.status, body: await response.json() }
}

async function register (url: string): Promise<string> {
  const { body: { temp_token: token } } = await call(url, '/auth/agent/request_temp_token', { body: { agent_id: 'agent-one', agent_type: 'testing', agent_key: keys.plain } })
  return (await call(url, '/agents/register', { token, body: registration() })).body.access_token
}

t.test('server storage: a restarted server keeps its agents and accepts the tokens it accepted before', async t => {
  const folder = realpathSync(t.testdir())
  const first = start(t, folder)
  const url = await urlOf(first)
  t.ok(first.output().split('\n').includes(`  data: ${join(folder, 'data')}`), 'the log names the data folder')
  const agent = await register(url)
  const { body: { access_token: admin } } = await call(url, '/auth/login', { body: { username: 'admin', password } })
  const { body: { access_token: gone } } = await call(url, '/auth/login', { body: { username: 'admin', password } })
  t.equal((await call(url, '/auth/logout', { token: gone, body: {} })).status, 200)
  const { body: before } = await call(url, '/agents/agent-one', { token: agent })
  first.child.kill('SIGTERM')
  t.equal((await first.ended).code, 0)

  const again = await urlOf(start(t, folder))
  const { status, body: after } = await call(again, '/agents/agent-one', { token: agent })
  t.equal(status, 200)
  t.same([after.incarnation, after.registered_at], [before.incarnation, before.registered_at])
  t.equal((await call(again, '/auth/session_status', { token: admin })).status, 200)
  t.equal((await call(again, '/auth/session_status', { token: gone })).status, 401, 'ended sessions stay ended')
  t.match((await call(again, '/health/detailed', { token: admin })).body, { detailed: { database: { type: 'level' } }, components: { storage: { status: 'healthy' } } })
  t.match((await call(again, '/health')).body, { status: 'healthy', storage: { redis: 'not_configured' } })
})

t.test('server storage: rotating the secret leaves every agent with its key', async t => {
  const folder = t.testdir()
  const [old, fresh] = ['a secret that was used until now ....', 'a secret that is used from now on ...']
  const first = start(t, folder, { JWT_SECRET: old })
  const agent = await register(await urlOf(first))
  first.child.kill('SIGTERM')
  await first.ended

  const second = start(t, folder, { JWT_SECRET: JSON.stringify([fresh, old]) })
  const url = await urlOf(second)
  t.equal((await call(url, '/agents/agent-one', { token: agent })).status, 200, 'tokens of the previous secret stay valid')
  second.child.kill('SIGTERM')
  await second.ended

  const third = await urlOf(start(t, folder, { JWT_SECRET: fresh }))
  t.equal((await call(third, '/agents/agent-one', { token: agent })).status, 401)
  const { body: { temp_token: token } } = await call(third, '/auth/agent/request_temp_token', { body: { agent_id: 'agent-one', agent_type: 'testing', agent_key: keys.plain } })
  const response = await fetch(`${third}/agents/agent-one`, { method: 'DELETE', headers: { authorization: `Bearer ${token}` } })
  t.equal(response.status, 200, 'the key still owns its agents')
})

t.test('server storage: data is stored in the configured place only', async t => {
  const folder = t.testdir()
  const placed = start(t, folder, { ARCP_DATA_DIR: 'elsewhere' })
  await urlOf(placed)
  t.match(placed.output(), /^ {2}data: .+\/elsewhere$/m)
  const inMemory = start(t, folder, { STORE: 'memory' })
  await urlOf(inMemory)
  t.match(inMemory.output(), /^ {2}data: in memory, lost when this process ends$/m)
  t.ok(existsSync(join(folder, 'elsewhere')))
  t.notOk(existsSync(join(folder, 'data')))
})

t.test('server storage: foreign data or data in use ends the start and stays unchanged', async t => {
  const folder = t.testdir({ foreign: { 'letter.txt': 'not a store' } })
  const foreign = await start(t, folder, { ARCP_DATA_DIR: 'foreign' }).ended
  t.same([foreign.code, foreign.out], [1, ''])
  t.match(foreign.err, /^fastify-agent-registry: .*foreign.*\n$/)
  t.same(readdirSync(join(folder, 'foreign')), ['letter.txt'])
  await urlOf(start(t, folder))
  const second = await start(t, folder).ended
  t.same([second.code, second.out], [1, ''])
  t.match(second.err, /^fastify-agent-registry: .*data.*another process.*\n$/)
})

t.test('server storage: an unreachable Redis ends the start, and the log hides its password', async t => {
  const { code, out, err } = await start(t, t.testdir(), { REDIS_URL: 'redis://:hidden@127.0.0.1:1' }).ended
  t.same([code, out], [1, ''])
  t.match(err, /^fastify-agent-registry: .*Redis.*\n$/)
  t.notMatch(err, 'hidden')
})
