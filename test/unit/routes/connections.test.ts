import type { IncomingMessage, RequestListener } from 'node:http'
import { json } from 'node:stream/consumers'
import fastify from 'fastify'
import t, { type Test } from 'tap'
import agentRegistry, { type AgentRegistryOptions } from '../../../src/index.js'
import { answerChecker, build, freePort, Harness, problemOf, serve, until, withDefaults, type Answer, type Call, type Json } from '../../support/harness.js'

const answers = answerChecker()
const pathsOf = ({ body }: Answer): string[] => body.errors.map(({ path }: Json) => path)
const request = { user_id: 'ann@example.org', user_endpoint: 'https://ann.example.org/in' }
const unreachable = 'The endpoint of this agent could not be reached'
const x = (length: number) => 'x'.repeat(length)

interface Seen { method: string, url: string, headers: IncomingMessage['headers'], body: Json }

/** An agent that answers 200 and keeps what it was sent. */
async function recorder (t: Test) {
  const seen: Seen[] = []
  const endpoint = await serve(t, async (request, response) => {
    seen.push({ method: request.method!, url: request.url!, headers: request.headers, body: await json(request) })
    response.end('a secret of the agent')
  })
  return { seen, endpoint }
}

const answering = (status: number, headers: Record<string, string> = {}): RequestListener => (_request, response) => { response.writeHead(status, headers).end() }

t.test('asking an agent to contact a user', async t => {
  const registry = await build(t, {}, answers)
  const connect = (id: string, body: unknown = request) => registry.post(`/public/connect/${id}`, { body })

  await t.test('reaches the agent, and the answer is what existing clients accept', async t => {
    const { seen, endpoint } = await recorder(t)
    await registry.agent('agent-one', { name: 'Helper', endpoint: `${endpoint}/base/`, requirements: { permissions: ['mail'] } })
    const { status, body, text } = await connect('agent-one', { ...request, display_name: ' Ann ', additional_info: { plan: 'free', seats: 2, list: ['a'], nested: { b: true } }, unknown: 1 })
    t.equal(status, 200)
    t.match(body, {
      status: 'connection_requested',
      message: 'Connection request sent to Helper',
      next_steps: 'Agent will contact you directly with connection details',
      agent_info: { name: 'Helper', agent_type: 'testing', capabilities: ['cap one'], requirements: { permissions: ['mail'] } },
      request_id: /^[a-zA-Z0-9_-]{5,100}$/,
      timestamp: /Z$/
    })
    t.notMatch(text, 'a secret of the agent', 'what the agent answers is not passed on')
    const [call] = seen
    t.match(call, { method: 'POST', url: '/base/connection/request', headers: { 'content-type': 'application/json', 'user-agent': /^fastify-agent-registry\// } })
    t.notOk(call!.headers.authorization)
    t.same(call!.body, {
      user_id: 'ann@example.org',
      user_endpoint: 'https://ann.example.org/in',
      user_display_name: 'Ann',
      connection_type: 'external_app',
      user_info: { plan: 'free', seats: 2, list: ['a'], nested: { b: true } },
      timestamp: body.timestamp,
      request_source: 'arcp_public_api'
    })
    const { body: again } = await connect('agent-one', { ...request, display_name: '' })
    t.not(again.request_id, body.request_id, 'each request has an id of its own')
    t.match(seen[1]!.body, { user_display_name: 'Anonymous User', user_info: {} })
  })

  await t.test('does not reach who is not there, is dead or drains', async t => {
    for (const id of ['nobody-here', '__proto__', '%3Cimg%3E']) t.equal(problemOf(t, await connect(id)), 'agent-not-found')
    const { seen, endpoint } = await recorder(t)
    const token = await registry.agent('drained-one', { endpoint })
    await registry.post('/agents/drained-one/status', { token, body: { status: 'draining' } })
    const refused = await connect('drained-one')
    t.equal(refused.status, 404)
    t.equal(problemOf(t, refused), 'agent-not-available')
    t.same(seen, [])
  })

  await t.test('an endpoint that refuses, redirects or fails is unreachable, and nothing tells which', async t => {
    const { seen, endpoint } = await recorder(t)
    const endpoints = [
      `http://127.0.0.1:${await freePort()}`,
      await serve(t, answering(404)),
      await serve(t, answering(500)),
      await serve(t, answering(302, { location: `${endpoint}/connection/request` })),
      await serve(t, request => { request.socket.destroy() }),
      'http://no.such.host.invalid'
    ]
    const texts = new Set()
    for (const [index, endpoint] of endpoints.entries()) {
      await registry.agent(`broken-${index}`, { endpoint })
      const answer = await connect(`broken-${index}`)
      t.equal(answer.status, 502, endpoint)
      t.equal(problemOf(t, answer), 'endpoint-unreachable')
      texts.add(answer.body.detail)
    }
    t.same([...texts], [unreachable])
    t.same(seen, [], 'no redirect was followed')
  })
})

const right: object[] = [
  { user_id: 'ab' }, { user_id: x(100) }, { user_id: 'a_@.-9' }, { user_endpoint: `http://${x(2041)}` }, { display_name: x(200) }, { display_name: '😀'.repeat(200) },
  { additional_info: { [x(100)]: x(1000) } }, { additional_info: Object.fromEntries(Array.from({ length: 50 }, (_, index) => [`key-${index}`, index])) }
]
const wrong: Array<[change: object, path: string]> = [
  [{ user_id: undefined }, '/user_id'], [{ user_id: 'a' }, '/user_id'], [{ user_id: x(101) }, '/user_id'], [{ user_id: 'a b' }, '/user_id'], [{ user_id: '<b>' }, '/user_id'], [{ user_id: 7 }, '/user_id'],
  [{ user_endpoint: undefined }, '/user_endpoint'], [{ user_endpoint: 'ftp://example.org' }, '/user_endpoint'], [{ user_endpoint: `http://${x(2042)}` }, '/user_endpoint'], [{ user_endpoint: 'http://ab c' }, '/user_endpoint'],
  [{ display_name: x(201) }, '/display_name'], [{ display_name: 'a\u0007b' }, '/display_name'], [{ display_name: 7 }, '/display_name'],
  [{ additional_info: 'text' }, '/additional_info'], [{ additional_info: { a: null } }, '/additional_info/a'], [{ additional_info: { a: x(1001) } }, '/additional_info/a'],
  [{ additional_info: { [x(101)]: 1 } }, `/additional_info/${x(101)}`],
  [{ additional_info: Object.fromEntries(Array.from({ length: 51 }, (_, index) => [`key-${index}`, index])) }, '/additional_info']
]

t.test('a request is checked before anybody is called', async t => {
  const registry = await build(t, {}, answers)
  const { seen, endpoint } = await recorder(t)
  await registry.agent('agent-one', { endpoint })
  for (const [change, path] of wrong) {
    const answer = await registry.post('/public/connect/agent-one', { body: { ...request, ...change } })
    t.equal(problemOf(t, answer), 'validation-failed', JSON.stringify(change).slice(0, 60))
    t.same(pathsOf(answer), [path], JSON.stringify(change).slice(0, 60))
  }
  t.equal((await registry.post('/public/connect/agent-one')).status, 422)
  t.same(seen, [])
  for (const change of right) t.equal((await registry.post('/public/connect/agent-one', { body: { ...request, ...change } })).status, 200, JSON.stringify(change).slice(0, 60))
  t.equal(seen.length, right.length)
})

t.test('telling an agent where another one is', async t => {
  const registry = await build(t, {}, answers)
  const token = await registry.agent('sender-one')
  const { seen, endpoint } = await recorder(t)
  await registry.agent('target-one', { endpoint })
  const note = { agent_id: 'sender-one', agent_endpoint: 'http://127.0.0.1:4000', agent_info: { any: { thing: null } } }
  const notify = (body: unknown = note, call: Call = { token }, id = 'target-one') => registry.post(`/agents/${id}/connection/notify`, { ...call, body })

  await t.test('reaches it with what was said and no more', async t => {
    const answer = await notify({ ...note, extra: 'not for you' })
    t.equal(answer.status, 200)
    t.match(answer.body, { status: 'notified', message: 'Agent notified successfully', agent_endpoint: endpoint, next_step: String })
    t.match(seen, [{ method: 'POST', url: '/connection/notify' }])
    t.same(seen[0]!.body, note)
    t.equal((await notify({ agent_id: 'sender-one', agent_endpoint: 'http://127.0.0.1:4000' })).status, 200)
    t.same(seen[1]!.body.agent_info, {})
  })

  await t.test('is for agents, in their own name, and for admins', async t => {
    const other = await notify({ ...note, agent_id: 'target-one' })
    t.equal(problemOf(t, other), 'insufficient-permissions')
    t.equal((await notify({ ...note, agent_id: 'target-one' }, await registry.admin())).status, 200)
    t.equal(problemOf(t, await notify(note, {})), 'authentication-failed')
    t.equal(problemOf(t, await notify(note, { token: await registry.tempToken('sender-one') })), 'insufficient-permissions')
    t.equal(problemOf(t, await notify(note, { token }, 'nobody-here')), 'agent-not-found')
  })

  await t.test('every missing or wrong field is a validation error', async t => {
    const wrong: Array<[body: object, paths: string[]]> = [
      [{}, ['/agent_id', '/agent_endpoint']], [{ agent_id: 'sender-one' }, ['/agent_endpoint']], [{ ...note, agent_id: 'ab' }, ['/agent_id']], [{ ...note, agent_endpoint: 'here' }, ['/agent_endpoint']],
      [{ ...note, agent_info: [] }, ['/agent_info']], [{ ...note, agent_info: null }, ['/agent_info']],
      [{ ...note, agent_info: Object.fromEntries(Array.from({ length: 51 }, (_, index) => [`key-${index}`, 1])) }, ['/agent_info']]
    ]
    const before = seen.length
    for (const [body, paths] of wrong) {
      const answer = await notify(body)
      t.equal(problemOf(t, answer), 'validation-failed')
      t.same(pathsOf(answer), paths, JSON.stringify(body).slice(0, 60))
    }
    t.equal(seen.length, before)
  })

  await t.test('tells an agent that takes no notifications from one that cannot be reached', async t => {
    await registry.agent('deaf-one', { endpoint: await serve(t, answering(404)) })
    const deaf = await notify(note, { token }, 'deaf-one')
    t.equal(deaf.status, 404)
    t.equal(problemOf(t, deaf), 'not-found')
    await registry.agent('gone-one', { endpoint: `http://127.0.0.1:${await freePort()}` })
    t.equal(problemOf(t, await notify(note, { token }, 'gone-one')), 'endpoint-unreachable')
  })
})

t.test('an agent that does not answer is a timeout', async t => {
  const registry = await build(t, {}, answers)
  await registry.agent('silent-one', { endpoint: await serve(t, () => {}) })
  const token = await registry.agent('sender-one')
  const calls = [
    registry.post('/public/connect/silent-one', { body: request }),
    registry.post('/agents/silent-one/connection/notify', { token, body: { agent_id: 'sender-one', agent_endpoint: 'http://127.0.0.1:1' } })
  ]
  for (const answer of await Promise.all(calls)) {
    t.equal(answer.status, 504)
    t.equal(problemOf(t, answer), 'connection-timeout')
  }
})

t.test('calls are limited per caller', async t => {
  const registry = await build(t, {}, answers)
  const { seen, endpoint } = await recorder(t)
  await registry.agent('agent-one', { endpoint })
  const statuses = []
  for (let index = 0; index < 11; index++) statuses.push((await registry.post('/public/connect/agent-one', { body: request })).status)
  t.same(statuses, [...Array(10).fill(200), 429])
  const refused = await registry.post('/public/connect/agent-one', { body: request })
  t.equal(problemOf(t, refused), 'rate-limit-exceeded')
  t.ok(Number(refused.headers.get('retry-after')) >= 1)
  t.equal(seen.length, 10)
})

t.test('whoever has a network of addresses is one caller', async t => {
  const registry = await build(t, {}, { server: { trustProxy: true } })
  const { seen, endpoint } = await recorder(t)
  await registry.agent('agent-one', { endpoint })
  const from = (address: string) => registry.post('/public/connect/agent-one', { body: request, headers: { 'x-forwarded-for': address } })
  for (let index = 0; index < 10; index++) t.equal((await from(`2001:db8:1:2::${index + 1}`)).status, 200)
  t.equal((await from('2001:db8:1:2:ffff::1')).status, 429)
  t.equal((await from('2001:db8:1:3::1')).status, 200)
  t.equal(seen.length, 11)
})

/** A registry that listens at every address of this machine. */
async function buildOpen (t: Test, options: AgentRegistryOptions = {}): Promise<Harness> {
  const app = fastify()
  await app.register(agentRegistry, withDefaults(options))
  await app.listen({ port: 0, host: '0.0.0.0' })
  t.teardown(() => app.close())
  return new Harness(app)
}

t.test('a registry that others can reach calls nobody on its own machine', async t => {
  const registry = await buildOpen(t)
  const { seen, endpoint } = await recorder(t)
  const { port } = new URL(endpoint)
  const token = await registry.agent('sender-one')
  const hosts = ['127.0.0.1', 'localhost', '0.0.0.0', '[::1]', '[::ffff:127.0.0.1]', '2130706433', '169.254.169.254', '10.0.0.1']
  for (const [index, host] of hosts.entries()) {
    await registry.join(`inside-${index}`, { endpoint: `http://${host}:${port}` })
    const call = index % 2 === 0
      ? registry.post(`/public/connect/inside-${index}`, { body: request })
      : registry.post(`/agents/inside-${index}/connection/notify`, { token, body: { agent_id: 'sender-one', agent_endpoint: 'http://127.0.0.1:1' } })
    const answer = await call
    t.equal(problemOf(t, answer), 'endpoint-unreachable', host)
    t.equal(answer.body.detail, unreachable, host)
  }
  t.same(seen, [])
})

t.test('shutting down ends the calls that are under way', async t => {
  const registry = await build(t)
  let called = false
  await registry.agent('silent-one', { endpoint: await serve(t, () => { called = true }) })
  const answer = registry.post('/public/connect/silent-one', { body: request }).catch((error: unknown) => error)
  await until(() => called)
  await registry.app.close()
  t.ok(await answer)
})

t.test('every answer was what its schema promises', async t => { t.same(answers.findings, []) })
