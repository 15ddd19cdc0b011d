import { once } from 'node:events'
import { createServer, type IncomingMessage, type RequestListener } from 'node:http'
import {
  type AddressInfo, createServer as createSocketServer, getDefaultAutoSelectFamily, type Server, setDefaultAutoSelectFamily,
  type Socket
} from 'node:net'
import { json } from 'node:stream/consumers'
import fastify from 'fastify'
import t, { type Test } from 'tap'
import { isLoopback, isPublicAddress } from '../../../src/webhooks/addresses.js'
import { Webhooks, type WebhooksOptions } from '../../../src/webhooks/webhooks.js'
import agentRegistry, { type AgentRegistryOptions } from '../../../src/index.js'
import {
  type Answer, answerChecker, build, type Call, freePort, Harness, type Json, problemOf, serve, until, withDefaults
} from '../../support/harness.js'
import { manualClock } from '../auth/helper.js'

const parties = { caller: 'user', target: 'agent-one' }
const unreachable = { statusCode: 502, type: 'endpoint-unreachable', message: 'The endpoint of this agent could not be reached' }
const tooMany = { code: 'AGENT_REGISTRY_RATE_LIMIT_EXCEEDED', statusCode: 429 }
const timeout = { code: 'AGENT_REGISTRY_CONNECTION_TIMEOUT', statusCode: 504, type: 'connection-timeout' }

async function listen (t: Test, server: Server): Promise<string> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => { server.close() })
  return `127.0.0.1:${(server.address() as AddressInfo).port}`
}

const serveEndpoint = (t: Test, listener: RequestListener) => listen(t, createServer(listener))

/** Webhooks that may call this machine. */
function callsFor (t: Test, options: Partial<WebhooksOptions> = {}) {
  const calls = new Webhooks({ now: manualClock(), allowLoopback: () => true, ...options })
  t.teardown(() => calls.close())
  return calls
}

const resolving = (...addresses: string[]) => async () => addresses.map(address => ({ address, family: address.includes(':') ? 6 : 4 }))

const notPublic = ['0.0.0.0', '0.1.2.3', '10.0.0.1', '10.255.255.255',
  '100.64.0.1', '100.127.255.255', '100.100.100.200', '127.0.0.1', '127.9.9.9',
  '168.63.129.16', '169.254.169.254', '172.16.0.1', '172.31.255.255', '192.0.0.1', '192.0.2.1', '192.88.99.1', '192.168.1.1', '198.18.0.1',
  '198.19.255.255', '198.51.100.7', '203.0.113.9', '224.0.0.1', '239.1.1.1', '240.0.0.1', '255.255.255.255',
  '::', '::1', '::7f00:1', '::ffff:127.0.0.1', '::ffff:10.0.0.1', '::ffff:a9fe:a9fe', '::ffff:0.0.0.0', '64:ff9b::127.0.0.1',
  '64:ff9b::a9fe:a9fe',
  '64:ff9b:1::1', '100::1', '2001::1', '2001:0:4136:e378:8000:63bf:3fff:fdd2', '2001:2::1', '2001:10::1', '2001:20::1', '2001:db8::1',
  '2002:7f00:1::', '2002:a00:1::1', '2002:c0a8:101::1', '2002:a9fe:a9fe::', '3fff::1', '5f00::1', 'fc00::1', 'fd00:ec2::254', 'fe80::1',
  'fec0::1', 'ff02::1']
const publicOnes = ['1.1.1.1', '9.255.255.255', '11.0.0.1', '100.63.255.255', '100.128.0.1', '172.15.0.1',
  '172.32.0.1', '192.0.1.1', '192.167.1.1', '198.17.0.1', '223.255.255.255',
  '2606:4700::1111', '2a00:1450::1', '2001:4860:4860::8888', '2400::1', '::ffff:1.1.1.1', '64:ff9b::8.8.8.8', '2002:808:808::1']

t.test('public addresses: the ranges', async t => {
  for (const address of notPublic) t.equal(isPublicAddress(address), false, address)
  for (const address of publicOnes) t.equal(isPublicAddress(address), true, address)
  for (const address of ['127.0.0.1', '127.9.9.9', '::1', '::ffff:127.0.0.1']) t.equal(isLoopback(address), true, address)
  for (const address of ['128.0.0.1', '::2', '10.0.0.1', '::ffff:10.0.0.1']) t.equal(isLoopback(address), false, address)
})

t.test('public addresses: a host with a non-public address is refused as unreachable', async t => {
  let connections = 0
  const host = await listen(t, createSocketServer(() => { connections++ }))
  const port = host.split(':')[1]
  for (const address of notPublic) {
    const calls = callsFor(t, { allowLoopback: () => false, resolve: resolving('1.1.1.1', address) })
    await t.rejects(calls.post(`http://agent.example:${port}/`, {}, parties), unreachable, address)
  }
  await t.rejects(callsFor(t, { allowLoopback: () => false, resolve: resolving() }).post('http://agent.example/', {}, parties), unreachable,
    'not an address')
  await t.rejects(callsFor(t, { allowLoopback: () => false }).post(`http://${host}/`, {}, parties), unreachable)
  await t.rejects(callsFor(t, { allowLoopback: () => false }).post(`http://[::1]:${port}/`, {}, parties), unreachable)
  await t.rejects(callsFor(t, { allowLoopback: () => false }).post(`http://0x7f.1:${port}/`, {}, parties), unreachable, 'other spellings')
  await t.rejects(callsFor(t, { resolve: resolving('10.0.0.1') }).post('http://agent.example/', {}, parties), unreachable, 'loopback only')
  t.equal(connections, 0)
})

t.test('webhooks: the own machine is called only if allowed', async t => {
  let connections = 0
  const host = await listen(t, createSocketServer(() => { connections++ }))
  const calls = new Webhooks({ now: manualClock() })
  t.teardown(() => calls.close())
  await t.rejects(calls.post(`http://${host}/`, {}, parties), unreachable)
  t.equal(connections, 0)
})

t.test('webhooks: only HTTP URLs are called', async t => {
  for (const url of ['ftp://127.0.0.1/', 'file:///etc/passwd', 'no url', 'http://']) {
    await t.rejects(callsFor(t).post(url, {}, parties), unreachable, url)
  }
})

t.test('webhooks: a call is a JSON POST that identifies the registry', async t => {
  const seen: { method?: string | undefined, url?: string | undefined, headers?: Record<string, unknown>, body?: string } = {}
  const host = await serveEndpoint(t, async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    Object.assign(seen, { method: request.method, url: request.url, headers: request.headers, body: Buffer.concat(chunks).toString() })
    response.writeHead(202).end('{"secret":"never passed on"}')
  })
  const answer = await callsFor(t).post(`http://user:password@${host}/connection/request?x=1`, { naïve: true }, parties)
  t.strictSame(answer, { status: 202 })
  t.match(seen, {
    method: 'POST',
    url: '/connection/request?x=1',
    body: '{"naïve":true}',
    headers: {
      host, 'content-type': 'application/json', 'content-length': '15'
    }
  })
  t.match(seen.headers!['user-agent'], /^fastify-agent-registry\/\d+\.\d+\.\d+/)
  t.equal(seen.headers!.authorization, undefined, 'userinfo is not sent')
})

t.test('webhooks: the socket connects to the checked address', async t => {
  const host = await serveEndpoint(t, (request, response) => { response.end(request.headers.host) })
  let asked = 0
  const resolve = async () => { asked++; return [{ address: '127.0.0.1', family: 4 }] }
  const url = `http://name-that-nobody-has.invalid:${host.split(':')[1]}/`
  t.strictSame(await callsFor(t, { resolve }).post(url, {}, parties), { status: 200 })
  t.equal(asked, 1, 'no second lookup')
  const automatic = getDefaultAutoSelectFamily()
  t.teardown(() => setDefaultAutoSelectFamily(automatic))
  setDefaultAutoSelectFamily(!automatic)
  t.strictSame(await callsFor(t, { resolve }).post(url, {}, parties), { status: 200 }, 'with and without parallel address families')
})

t.test('webhooks: names of this machine are resolved by the system', async t => {
  const host = await serveEndpoint(t, (_request, response) => { response.writeHead(204).end() })
  t.strictSame(await callsFor(t).post(`http://localhost:${host.split(':')[1]}/`, {}, parties), { status: 204 })
})

t.test('webhooks: redirects are not followed', async t => {
  let visits = 0
  const host = await serveEndpoint(t, (_request, response) => { visits++; response.writeHead(302, { location: '/again' }).end() })
  t.strictSame(await callsFor(t).post(`http://${host}/`, {}, parties), { status: 302 })
  t.equal(visits, 1)
})

t.test('webhooks: an endpoint that does not listen or speaks another protocol is unreachable', async t => {
  const server = createServer()
  const host = await listen(t, server)
  server.close()
  await t.rejects(callsFor(t).post(`http://${host}/`, {}, parties), unreachable, 'closed port')
  const talker = await listen(t, createSocketServer(socket => { socket.end('220 mail.example ESMTP\r\n') }))
  await t.rejects(callsFor(t).post(`http://${talker}/`, {}, parties), unreachable, 'not HTTP')
  const switcher = await listen(t, createSocketServer(socket => {
    socket.on('error', () => {})
      .end('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n')
  }))
  await t.rejects(callsFor(t).post(`http://${switcher}/`, {}, parties), unreachable, 'another protocol')
  const cutter = await listen(t, createSocketServer(socket => {
    socket.on('error', () => {})
      .end('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx')
  }))
  await t.rejects(callsFor(t).post(`http://${cutter}/`, {}, parties), unreachable, 'half a response')
  await t.rejects(callsFor(t).post(`https://${talker}/`, {}, parties), unreachable, 'not TLS')
  await t.rejects(callsFor(t, { resolve: async () => { throw new Error('ENOTFOUND') } }).post(
    'http://agent.example/', {}, parties
  ), unreachable,
  'unknown name')
})

t.test('webhooks: a call that hangs before or in the response or in the resolver times out', async t => {
  const alive = setInterval(() => {}, 1_000)
  t.teardown(() => clearInterval(alive))
  const sockets = new Set<Socket>()
  const silent = await listen(t, createSocketServer(socket => { sockets.add(socket.on('error', () => {})) }))
  t.teardown(() => { for (const socket of sockets) socket.destroy() })
  await t.rejects(callsFor(t, { timeoutMs: 50 }).post(`http://${silent}/`, {}, parties), timeout, 'hanging')
  const slow = await serveEndpoint(t, (_request, response) => {
    const drip = setInterval(() => response.write('x'), 10)
    response.on('close', () => clearInterval(drip))
  })
  await t.rejects(callsFor(t, { timeoutMs: 100 }).post(`http://${slow}/`, {}, parties), timeout, 'slow')
  await t.rejects(
    callsFor(t, { timeoutMs: 50, resolve: () => new Promise(() => {}) }).post('http://agent.example/', {}, parties), timeout, 'resolver'
  )
})

t.test('webhooks: 64 KiB of a huge response are read', async t => {
  let written = 0
  const host = await serveEndpoint(t, (_request, response) => {
    const chunk = Buffer.alloc(16_384)
    const write = () => { while (written < 1_073_741_824 && response.write(chunk)) written += chunk.length }
    response.on('drain', write).on('error', () => {})
    write()
  })
  t.strictSame(await callsFor(t).post(`http://${host}/`, {}, parties), { status: 200 })
  t.ok(written < 67_108_864, `${written} bytes left the server`)
})

t.test('webhooks: calls per caller and per target are limited', async t => {
  const now = manualClock()
  const host = await serveEndpoint(t, (_request, response) => { response.end() })
  const calls = callsFor(t, { now, perCaller: { burst: 2, perMinute: 60 }, perTarget: { burst: 3, perMinute: 1 } })
  const post = (caller: string, target: string) => calls.post(`http://${host}/`, {}, { caller, target })
  await post('a', 'x')
  await post('a', 'x')
  await t.rejects(post('a', 'y'), { ...tooMany, type: 'rate-limit-exceeded', headers: { 'retry-after': '1' } }, 'the caller')
  now.advance(1_000)
  await post('a', 'x')
  await t.rejects(post('b', 'x'), { ...tooMany, headers: { 'retry-after': '59' } }, 'the target')
  await post('b', 'y')
  now.advance(600_000)
  await post('a', 'x')
})

t.test('webhooks: concurrent calls are limited', async t => {
  const waiting: Array<() => void> = []
  const host = await serveEndpoint(t, (_request, response) => { waiting.push(() => response.end()) })
  const calls = callsFor(t, { maxConcurrent: 1 })
  const first = calls.post(`http://${host}/`, {}, parties)
  await t.rejects(calls.post(`http://${host}/`, {}, parties), tooMany)
  await until(() => waiting.length === 1)
  waiting[0]!()
  t.strictSame(await first, { status: 200 })
})

t.test('webhooks: closing ends running calls', async t => {
  let asked!: () => void
  const arrived = new Promise<void>(resolve => { asked = resolve })
  const host = await serveEndpoint(t, () => asked())
  const calls = callsFor(t)
  const call = t.rejects(calls.post(`http://${host}/`, {}, parties), unreachable)
  await arrived
  calls.close()
  await call
  await t.rejects(calls.post(`http://${host}/`, {}, parties), unreachable)
})

const answers = answerChecker()
const pathsOf = ({ body }: Answer): string[] => body.errors.map(({ path }: Json) => path)
const request = { user_id: 'ann@example.org', user_endpoint: 'https://ann.example.org/in' }
const unreachableDetail = 'The endpoint of this agent could not be reached'
const x = (length: number) => 'x'.repeat(length)

interface Seen { method: string, url: string, headers: IncomingMessage['headers'], body: Json }

/** An agent that answers 200 and records the requests. */
async function recorder (t: Test) {
  const seen: Seen[] = []
  const endpoint = await serve(t, async (request, response) => {
    seen.push({ method: request.method!, url: request.url!, headers: request.headers, body: await json(request) })
    response.end('a secret of the agent')
  })
  return { seen, endpoint }
}

const answering = (status: number, headers: Record<string, string> = {}): RequestListener =>
  (_request, response) => { response.writeHead(status, headers).end() }

t.test('contact requests', async t => {
  const registry = await build(t, {}, answers)
  const connect = (id: string, body: unknown = request) => registry.post(`/public/connect/${id}`, { body })

  await t.test('contact requests: the agent receives it, and the response is one that existing clients accept', async t => {
    const { seen, endpoint } = await recorder(t)
    await registry.agent('agent-one', { name: 'Helper', endpoint: `${endpoint}/base/`, requirements: { permissions: ['mail'] } })
    const { status, body, text } = await connect('agent-one', {
      ...request, display_name: ' Ann ', additional_info: { plan: 'free', seats: 2, list: ['a'], nested: { b: true } }, unknown: 1
    })
    t.equal(status, 200)
    t.match(body, {
      status: 'connection_requested',
      message: 'Connection request sent to Helper',
      next_steps: 'Agent will contact you directly with connection details',
      agent_info: { name: 'Helper', agent_type: 'testing', capabilities: ['cap one'], requirements: { permissions: ['mail'] } },
      request_id: /^[a-zA-Z0-9_-]{5,100}$/,
      timestamp: /Z$/
    })
    t.notMatch(text, 'a secret of the agent', 'the answer of the agent is not passed on')
    const [call] = seen
    t.match(call, {
      method: 'POST',
      url: '/base/connection/request',
      headers: {
        'content-type': 'application/json', 'user-agent': /^fastify-agent-registry\//
      }
    })
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
    t.not(again.request_id, body.request_id, 'each request has its own id')
    t.match(seen[1]!.body, { user_display_name: 'Anonymous User', user_info: {} })
  })

  await t.test('contact requests: a missing, dead or draining agent is not called', async t => {
    for (const id of ['nobody-here', '__proto__', '%3Cimg%3E']) t.equal(problemOf(t, await connect(id)), 'agent-not-found')
    const { seen, endpoint } = await recorder(t)
    const token = await registry.agent('drained-one', { endpoint })
    await registry.post('/agents/drained-one/status', { token, body: { status: 'draining' } })
    const refused = await connect('drained-one')
    t.equal(refused.status, 404)
    t.equal(problemOf(t, refused), 'agent-not-available')
    t.same(seen, [])
  })

  await t.test('contact requests: an endpoint that refuses, redirects or fails is unreachable, without details', async t => {
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
    t.same([...texts], [unreachableDetail])
    t.same(seen, [], 'no redirect was followed')
  })
})

const right: object[] = [
  { user_id: 'ab' }, { user_id: x(100) }, { user_id: 'a_@.-9' }, { user_endpoint: `http://${x(2041)}` }, { display_name: x(200) },
  { display_name: '😀'.repeat(200) },
  { additional_info: { [x(100)]: x(1000) } },
  { additional_info: Object.fromEntries(Array.from({ length: 50 }, (_, index) => [`key-${index}`, index])) }
]
const wrong: Array<[change: object, path: string]> = [
  [{ user_id: undefined }, '/user_id'], [{ user_id: 'a' }, '/user_id'], [{ user_id: x(101) }, '/user_id'],
  [{ user_id: 'a b' }, '/user_id'], [{ user_id: '<b>' }, '/user_id'], [{ user_id: 7 }, '/user_id'],
  [{ user_endpoint: undefined }, '/user_endpoint'], [{ user_endpoint: 'ftp://example.org' }, '/user_endpoint'],
  [{ user_endpoint: `http://${x(2042)}` }, '/user_endpoint'], [{ user_endpoint: 'http://ab c' }, '/user_endpoint'],
  [{ display_name: x(201) }, '/display_name'], [{ display_name: 'a\u0007b' }, '/display_name'], [{ display_name: 7 }, '/display_name'],
  [{ additional_info: 'text' }, '/additional_info'], [{ additional_info: { a: null } }, '/additional_info/a'],
  [{ additional_info: { a: x(1001) } }, '/additional_info/a'],
  [{ additional_info: { [x(101)]: 1 } }, `/additional_info/${x(101)}`],
  [{ additional_info: Object.fromEntries(Array.from({ length: 51 }, (_, index) => [`key-${index}`, index])) }, '/additional_info']
]

t.test('contact requests: a request is validated before any call', async t => {
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
  for (const change of right) {
    t.equal(
      (await registry.post('/public/connect/agent-one', { body: { ...request, ...change } })).status, 200,
      JSON.stringify(change).slice(0, 60)
    )
  }
  t.equal(seen.length, right.length)
})

t.test('peer notifications', async t => {
  const registry = await build(t, {}, answers)
  const token = await registry.agent('sender-one')
  const { seen, endpoint } = await recorder(t)
  await registry.agent('target-one', { endpoint })
  const note = { agent_id: 'sender-one', agent_endpoint: 'http://127.0.0.1:4000', agent_info: { any: { thing: null } } }
  const notify = (body: unknown = note, call: Call = { token }, id = 'target-one') =>
    registry.post(`/agents/${id}/connection/notify`, { ...call, body })

  await t.test('peer notifications: the agent receives exactly what was sent', async t => {
    const answer = await notify({ ...note, extra: 'not for you' })
    t.equal(answer.status, 200)
    t.match(answer.body, { status: 'notified', message: 'Agent notified successfully', agent_endpoint: endpoint, next_step: String })
    t.match(seen, [{ method: 'POST', url: '/connection/notify' }])
    t.same(seen[0]!.body, note)
    t.equal((await notify({ agent_id: 'sender-one', agent_endpoint: 'http://127.0.0.1:4000' })).status, 200)
    t.same(seen[1]!.body.agent_info, {})
  })

  await t.test('peer notifications: agents may send them in their own name, and admins in any', async t => {
    const other = await notify({ ...note, agent_id: 'target-one' })
    t.equal(problemOf(t, other), 'insufficient-permissions')
    t.equal((await notify({ ...note, agent_id: 'target-one' }, await registry.admin())).status, 200)
    t.equal(problemOf(t, await notify(note, {})), 'authentication-failed')
    t.equal(problemOf(t, await notify(note, { token: await registry.tempToken('sender-one') })), 'insufficient-permissions')
    t.equal(problemOf(t, await notify(note, { token }, 'nobody-here')), 'agent-not-found')
  })

  await t.test('peer notifications: each missing or wrong field is a validation error', async t => {
    const wrong: Array<[body: object, paths: string[]]> = [
      [{}, ['/agent_id', '/agent_endpoint']], [{ agent_id: 'sender-one' }, ['/agent_endpoint']],
      [{ ...note, agent_id: 'ab' }, ['/agent_id']], [{ ...note, agent_endpoint: 'here' }, ['/agent_endpoint']],
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

  await t.test('peer notifications: unsupported and unreachable are distinguished', async t => {
    await registry.agent('deaf-one', { endpoint: await serve(t, answering(404)) })
    const deaf = await notify(note, { token }, 'deaf-one')
    t.equal(deaf.status, 404)
    t.equal(problemOf(t, deaf), 'not-found')
    await registry.agent('gone-one', { endpoint: `http://127.0.0.1:${await freePort()}` })
    t.equal(problemOf(t, await notify(note, { token }, 'gone-one')), 'endpoint-unreachable')
  })
})

t.test('peer notifications: an agent that does not answer is a timeout', async t => {
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

t.test('outgoing calls: they are limited per caller', async t => {
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

t.test('outgoing calls: a network of addresses is one caller', async t => {
  const registry = await build(t, {}, { server: { trustProxy: true } })
  const { seen, endpoint } = await recorder(t)
  await registry.agent('agent-one', { endpoint })
  const from = (address: string) => registry.post('/public/connect/agent-one', { body: request, headers: { 'x-forwarded-for': address } })
  for (let index = 0; index < 10; index++) t.equal((await from(`2001:db8:1:2::${index + 1}`)).status, 200)
  t.equal((await from('2001:db8:1:2:ffff::1')).status, 429)
  t.equal((await from('2001:db8:1:3::1')).status, 200)
  t.equal(seen.length, 11)
})

/** A registry that listens on every address of this machine. */
async function buildOpen (t: Test, options: AgentRegistryOptions = {}): Promise<Harness> {
  const app = fastify()
  await app.register(agentRegistry, withDefaults(options))
  await app.listen({ port: 0, host: '0.0.0.0' })
  t.teardown(() => app.close())
  return new Harness(app)
}

t.test('outgoing calls: a publicly reachable registry does not call its own machine', async t => {
  const registry = await buildOpen(t)
  const { seen, endpoint } = await recorder(t)
  const { port } = new URL(endpoint)
  const token = await registry.agent('sender-one')
  const hosts = ['127.0.0.1', 'localhost', '0.0.0.0', '[::1]', '[::ffff:127.0.0.1]', '2130706433', '169.254.169.254', '10.0.0.1']
  for (const [index, host] of hosts.entries()) {
    await registry.join(`inside-${index}`, { endpoint: `http://${host}:${port}` })
    const call = index % 2 === 0
      ? registry.post(`/public/connect/inside-${index}`, { body: request })
      : registry.post(
        `/agents/inside-${index}/connection/notify`, { token, body: { agent_id: 'sender-one', agent_endpoint: 'http://127.0.0.1:1' } }
      )
    const answer = await call
    t.equal(problemOf(t, answer), 'endpoint-unreachable', host)
    t.equal(answer.body.detail, unreachableDetail, host)
  }
  t.same(seen, [])
})

t.test('outgoing calls: a shutdown ends running calls', async t => {
  const registry = await build(t)
  let called = false
  await registry.agent('silent-one', { endpoint: await serve(t, () => { called = true }) })
  const answer = registry.post('/public/connect/silent-one', { body: request }).catch((error: unknown) => error)
  await until(() => called)
  await registry.app.close()
  t.ok(await answer)
})

t.test('every response matched its schema', async t => { t.same(answers.findings, []) })
