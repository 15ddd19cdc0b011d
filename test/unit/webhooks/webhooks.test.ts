import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import { createServer as createSocketServer, getDefaultAutoSelectFamily, setDefaultAutoSelectFamily, type AddressInfo, type Server, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { isLoopback, isPublicAddress } from '../../../src/webhooks/addresses.js'
import { Webhooks, type WebhooksOptions } from '../../../src/webhooks/webhooks.js'
import { manualClock } from '../auth/helper.js'
import { until } from '../search/helper.js'

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

const serve = (t: Test, listener: RequestListener) => listen(t, createServer(listener))

/** Webhooks that may call this machine. */
function callsFor (t: Test, options: Partial<WebhooksOptions> = {}) {
  const calls = new Webhooks({ now: manualClock(), allowLoopback: () => true, ...options })
  t.teardown(() => calls.close())
  return calls
}

const resolving = (...addresses: string[]) => async () => addresses.map(address => ({ address, family: address.includes(':') ? 6 : 4 }))

const notPublic = ['0.0.0.0', '0.1.2.3', '10.0.0.1', '10.255.255.255', '100.64.0.1', '100.127.255.255', '100.100.100.200', '127.0.0.1', '127.9.9.9',
  '168.63.129.16', '169.254.169.254', '172.16.0.1', '172.31.255.255', '192.0.0.1', '192.0.2.1', '192.88.99.1', '192.168.1.1', '198.18.0.1',
  '198.19.255.255', '198.51.100.7', '203.0.113.9', '224.0.0.1', '239.1.1.1', '240.0.0.1', '255.255.255.255',
  '::', '::1', '::7f00:1', '::ffff:127.0.0.1', '::ffff:10.0.0.1', '::ffff:a9fe:a9fe', '::ffff:0.0.0.0', '64:ff9b::127.0.0.1', '64:ff9b::a9fe:a9fe',
  '64:ff9b:1::1', '100::1', '2001::1', '2001:0:4136:e378:8000:63bf:3fff:fdd2', '2001:2::1', '2001:10::1', '2001:20::1', '2001:db8::1',
  '2002:7f00:1::', '2002:a00:1::1', '2002:c0a8:101::1', '2002:a9fe:a9fe::', '3fff::1', '5f00::1', 'fc00::1', 'fd00:ec2::254', 'fe80::1', 'fec0::1', 'ff02::1']
const publicOnes = ['1.1.1.1', '9.255.255.255', '11.0.0.1', '100.63.255.255', '100.128.0.1', '172.15.0.1', '172.32.0.1', '192.0.1.1', '192.167.1.1', '198.17.0.1', '223.255.255.255',
  '2606:4700::1111', '2a00:1450::1', '2001:4860:4860::8888', '2400::1', '::ffff:1.1.1.1', '64:ff9b::8.8.8.8', '2002:808:808::1']

t.test('which addresses are public', async t => {
  for (const address of notPublic) t.equal(isPublicAddress(address), false, address)
  for (const address of publicOnes) t.equal(isPublicAddress(address), true, address)
  for (const address of ['127.0.0.1', '127.9.9.9', '::1', '::ffff:127.0.0.1']) t.equal(isLoopback(address), true, address)
  for (const address of ['128.0.0.1', '::2', '10.0.0.1', '::ffff:10.0.0.1']) t.equal(isLoopback(address), false, address)
})

t.test('a host is refused when one of its addresses is not public, and looks unreachable', async t => {
  let connections = 0
  const host = await listen(t, createSocketServer(() => { connections++ }))
  const port = host.split(':')[1]
  for (const address of notPublic) {
    const calls = callsFor(t, { allowLoopback: () => false, resolve: resolving('1.1.1.1', address) })
    await t.rejects(calls.post(`http://agent.example:${port}/`, {}, parties), unreachable, address)
  }
  await t.rejects(callsFor(t, { allowLoopback: () => false, resolve: resolving() }).post('http://agent.example/', {}, parties), unreachable, 'no address')
  await t.rejects(callsFor(t, { allowLoopback: () => false }).post(`http://${host}/`, {}, parties), unreachable)
  await t.rejects(callsFor(t, { allowLoopback: () => false }).post(`http://[::1]:${port}/`, {}, parties), unreachable)
  await t.rejects(callsFor(t, { allowLoopback: () => false }).post(`http://0x7f.1:${port}/`, {}, parties), unreachable, 'other ways to write it')
  await t.rejects(callsFor(t, { resolve: resolving('10.0.0.1') }).post('http://agent.example/', {}, parties), unreachable, 'loopback only')
  t.equal(connections, 0)
})

t.test('this machine is called only where that is allowed', async t => {
  let connections = 0
  const host = await listen(t, createSocketServer(() => { connections++ }))
  const calls = new Webhooks({ now: manualClock() })
  t.teardown(() => calls.close())
  await t.rejects(calls.post(`http://${host}/`, {}, parties), unreachable)
  t.equal(connections, 0)
})

t.test('only URLs of HTTP', async t => {
  for (const url of ['ftp://127.0.0.1/', 'file:///etc/passwd', 'no url', 'http://']) await t.rejects(callsFor(t).post(url, {}, parties), unreachable, url)
})

t.test('a call is a POST of JSON that says who we are', async t => {
  const seen: { method?: string | undefined, url?: string | undefined, headers?: Record<string, unknown>, body?: string } = {}
  const host = await serve(t, async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    Object.assign(seen, { method: request.method, url: request.url, headers: request.headers, body: Buffer.concat(chunks).toString() })
    response.writeHead(202).end('{"secret":"never passed on"}')
  })
  const answer = await callsFor(t).post(`http://user:password@${host}/connection/request?x=1`, { naïve: true }, parties)
  t.strictSame(answer, { status: 202 })
  t.match(seen, { method: 'POST', url: '/connection/request?x=1', body: '{"naïve":true}', headers: { host, 'content-type': 'application/json', 'content-length': '15' } })
  t.match(seen.headers!['user-agent'], /^fastify-agent-registry\/\d+\.\d+\.\d+/)
  t.equal(seen.headers!.authorization, undefined, 'userinfo stays here')
})

t.test('the socket connects to the address that was checked', async t => {
  const host = await serve(t, (request, response) => { response.end(request.headers.host) })
  let asked = 0
  const resolve = async () => { asked++; return [{ address: '127.0.0.1', family: 4 }] }
  const url = `http://name-that-nobody-has.invalid:${host.split(':')[1]}/`
  t.strictSame(await callsFor(t, { resolve }).post(url, {}, parties), { status: 200 })
  t.equal(asked, 1, 'nothing is resolved twice')
  const automatic = getDefaultAutoSelectFamily()
  t.teardown(() => setDefaultAutoSelectFamily(automatic))
  setDefaultAutoSelectFamily(!automatic)
  t.strictSame(await callsFor(t, { resolve }).post(url, {}, parties), { status: 200 }, 'whether families are tried side by side or not')
})

t.test('names of this machine are resolved by the system', async t => {
  const host = await serve(t, (_request, response) => { response.writeHead(204).end() })
  t.strictSame(await callsFor(t).post(`http://localhost:${host.split(':')[1]}/`, {}, parties), { status: 204 })
})

t.test('redirects are not followed', async t => {
  let visits = 0
  const host = await serve(t, (_request, response) => { visits++; response.writeHead(302, { location: '/again' }).end() })
  t.strictSame(await callsFor(t).post(`http://${host}/`, {}, parties), { status: 302 })
  t.equal(visits, 1)
})

t.test('who does not listen, or speaks something else, is unreachable', async t => {
  const server = createServer()
  const host = await listen(t, server)
  server.close()
  await t.rejects(callsFor(t).post(`http://${host}/`, {}, parties), unreachable, 'closed port')
  const talker = await listen(t, createSocketServer(socket => { socket.end('220 mail.example ESMTP\r\n') }))
  await t.rejects(callsFor(t).post(`http://${talker}/`, {}, parties), unreachable, 'not HTTP')
  const switcher = await listen(t, createSocketServer(socket => { socket.on('error', () => {}).end('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n') }))
  await t.rejects(callsFor(t).post(`http://${switcher}/`, {}, parties), unreachable, 'another protocol')
  const cutter = await listen(t, createSocketServer(socket => { socket.on('error', () => {}).end('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx') }))
  await t.rejects(callsFor(t).post(`http://${cutter}/`, {}, parties), unreachable, 'half an answer')
  await t.rejects(callsFor(t).post(`https://${talker}/`, {}, parties), unreachable, 'not TLS')
  await t.rejects(callsFor(t, { resolve: async () => { throw new Error('ENOTFOUND') } }).post('http://agent.example/', {}, parties), unreachable, 'no such name')
})

t.test('who hangs, before or in an answer, or in the resolver, is given up in time', async t => {
  const alive = setInterval(() => {}, 1_000)
  t.teardown(() => clearInterval(alive))
  const sockets = new Set<Socket>()
  const silent = await listen(t, createSocketServer(socket => { sockets.add(socket.on('error', () => {})) }))
  t.teardown(() => { for (const socket of sockets) socket.destroy() })
  await t.rejects(callsFor(t, { timeoutMs: 50 }).post(`http://${silent}/`, {}, parties), timeout, 'hanging')
  const slow = await serve(t, (_request, response) => {
    const drip = setInterval(() => response.write('x'), 10)
    response.on('close', () => clearInterval(drip))
  })
  await t.rejects(callsFor(t, { timeoutMs: 100 }).post(`http://${slow}/`, {}, parties), timeout, 'slow')
  await t.rejects(callsFor(t, { timeoutMs: 50, resolve: () => new Promise(() => {}) }).post('http://agent.example/', {}, parties), timeout, 'resolver')
})

t.test('of a huge answer 64 KiB are read', async t => {
  let written = 0
  const host = await serve(t, (_request, response) => {
    const chunk = Buffer.alloc(16_384)
    const write = () => { while (written < 1_073_741_824 && response.write(chunk)) written += chunk.length }
    response.on('drain', write).on('error', () => {})
    write()
  })
  t.strictSame(await callsFor(t).post(`http://${host}/`, {}, parties), { status: 200 })
  t.ok(written < 67_108_864, `${written} bytes left the server`)
})

t.test('callers and targets are limited', async t => {
  const now = manualClock()
  const host = await serve(t, (_request, response) => { response.end() })
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

t.test('calls at once are limited', async t => {
  const waiting: Array<() => void> = []
  const host = await serve(t, (_request, response) => { waiting.push(() => response.end()) })
  const calls = callsFor(t, { maxConcurrent: 1 })
  const first = calls.post(`http://${host}/`, {}, parties)
  await t.rejects(calls.post(`http://${host}/`, {}, parties), tooMany)
  await until(() => waiting.length === 1)
  waiting[0]!()
  t.strictSame(await first, { status: 200 })
})

t.test('closing ends calls', async t => {
  let asked!: () => void
  const arrived = new Promise<void>(resolve => { asked = resolve })
  const host = await serve(t, () => asked())
  const calls = callsFor(t)
  const call = t.rejects(calls.post(`http://${host}/`, {}, parties), unreachable)
  await arrived
  calls.close()
  await call
  await t.rejects(calls.post(`http://${host}/`, {}, parties), unreachable)
})
