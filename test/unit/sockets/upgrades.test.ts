import { once } from 'node:events'
import { connect, type AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import fastify from 'fastify'
import t, { type Test } from 'tap'
import agentRegistry from '../../../src/index.js'
import { originCheck } from '../../../src/auth/origins.js'
import { build, problemOf, sleep, until, withDefaults, type Client, type Harness } from '../../support/harness.js'
import { assertAlive } from './helper.js'

const paths = ['/public/ws', '/agents/ws', '/dashboard/ws']

type Refusal = Awaited<Client['refused']>

/** How an upgrade ends: `open`, or its refusal. */
async function outcome (client: Client): Promise<'open' | Refusal> {
  return Promise.race([client.opened.then(() => 'open' as const, () => client.refused), client.refused])
}

/** The suffix of the problem that an upgrade was refused with, once its shape was checked. */
function refusedAs (t: Test, { status, headers, text }: Refusal): string {
  return problemOf(t, { status, headers: new Headers(headers as Record<string, string>), body: JSON.parse(text), text })
}

const from = (address: string) => ({ headers: { 'x-forwarded-for': address } })
const proxied = { server: { trustProxy: true } }

t.test('so many sockets of all tiers may come from one address, whoever they are', async t => {
  const registry = await build(t, { sockets: { maxConnectionsPerAddress: 3 } }, proxied)
  const token = await registry.join()
  const [anybody, unknown, known] = [registry.socket('/public/ws', [], from('192.0.2.1')), registry.socket('/agents/ws', [], from('192.0.2.1')), registry.socket('/agents/ws', [], { headers: { ...from('192.0.2.1').headers, authorization: `Bearer ${token}` } })]
  for (const client of [anybody, unknown, known]) t.equal(await outcome(client), 'open')
  for (const path of paths) {
    const refusal = await registry.socket(path, [], from('192.0.2.1')).refused
    t.equal(refusedAs(t, refusal), 'too-many-connections')
    t.match(refusal, { status: 503, headers: { 'retry-after': '5', connection: 'close' } }, path)
  }
  t.equal(await outcome(registry.socket('/public/ws', [], from('192.0.2.2'))), 'open', 'a neighbour may')
  await assertAlive(anybody)
  unknown.terminate()
  await until(async () => await outcome(registry.socket('/public/ws', [], from('192.0.2.1'))) === 'open')
  t.equal((await registry.socket('/public/ws', [], from('192.0.2.1')).refused).status, 503, 'one place was free, not two')
})

t.test('an IPv6 network counts as one address', async t => {
  const registry = await build(t, { sockets: { maxConnectionsPerAddress: 2 } }, proxied)
  const open = (address: string) => outcome(registry.socket('/public/ws', [], from(address)))
  t.strictSame([await open('2001:db8::1'), await open('2001:db8::2')], ['open', 'open'])
  t.match(await open('2001:db8::3'), { status: 503 })
  t.equal(await open('2001:db8:0:1::1'), 'open')
})

t.test('upgrades that are refused, given up or never decided give their place back', async t => {
  let asked = 0
  const registry = await build(t, {
    sockets: { maxConnectionsPerAddress: 2 },
    limits: { hookTimeoutMs: 400 },
    authenticate: () => { asked++; return new Promise(() => {}) }
  })
  for (let i = 0; i < 5; i++) t.equal((await registry.socket('/public/info').refused).status, 400)
  const hanging = [registry.socket('/agents/ws?token=whose'), registry.socket('/agents/ws?token=whose')]
  await until(() => asked === 2)
  t.equal((await registry.socket('/public/ws').refused).status, 503, 'while they are being decided they count')
  hanging[0]!.terminate()
  const refusal = await hanging[1]!.refused
  t.equal(refusedAs(t, refusal), 'hook-failed')
  const clients = [registry.socket('/public/ws'), registry.socket('/public/ws')]
  await until(async () => {
    for (const [index, client] of clients.entries()) if (await outcome(client) !== 'open') clients[index] = registry.socket('/public/ws')
    return (await Promise.all(clients.map(outcome))).every(result => result === 'open')
  })
})

t.test('many upgrades at once that are decided late do not pass one after the other\'s look', async t => {
  const registry = await build(t, { agentsWs: { maxConnections: 3 } }, {
    before: app => { app.addHook('preHandler', async () => { await sleep(50) }) }
  })
  const headers = { authorization: `Bearer ${await registry.join()}` }
  const outcomes = await Promise.all(Array.from({ length: 10 }, () => outcome(registry.socket('/agents/ws', [], { headers }))))
  t.equal(outcomes.filter(result => result === 'open').length, 3)
})

t.test('somebody who is not allowed on the dashboard takes no admin\'s place', async t => {
  const registry = await build(t, { dashboardWs: { maxConnections: 1, timeoutMs: 60_000 } })
  const agent = { headers: { authorization: `Bearer ${await registry.join()}` } }
  const stranger = registry.socket('/dashboard/ws', [], agent)
  await stranger.opened
  stranger.ws.pause()
  const { token, headers } = await registry.admin()
  const admin = registry.socket('/dashboard/ws', [], { headers: { ...headers, authorization: `Bearer ${token}` } })
  await admin.next('monitoring')
  t.equal((await registry.socket('/dashboard/ws', [], agent).refused).status, 503, 'and now it is full')
  stranger.ws.resume()
  t.equal((await stranger.closed).code, 4003)
})

t.test('what HTTP refuses is refused on an upgrade too, on every tier', async t => {
  const registry = await build(t, { addresses: { blocked: ['192.0.2.66', '2001:db8:66::/48'] }, limits: { maxHeaderBytes: 1000, maxQueryParams: 3 } }, proxied)
  for (const path of paths) {
    for (const address of ['192.0.2.66', '::ffff:192.0.2.66', '2001:db8:66::1']) t.equal(refusedAs(t, await registry.socket(path, [], from(address)).refused), 'insufficient-permissions', `${path} ${address}`)
    t.equal(refusedAs(t, await registry.socket(path, [], { headers: { padding: 'x'.repeat(1000) } }).refused), 'headers-too-large', path)
    t.equal(refusedAs(t, await registry.socket(`${path}?a&b&c&d`).refused), 'request-error', path)
    t.equal(await outcome(registry.socket(`${path}?a&b&c`)), 'open', path)
  }
  const denying = await build(t, { addresses: { defaultDeny: true, allowed: ['192.0.2.0/24'] } }, proxied)
  t.equal((await denying.socket('/public/ws').refused).status, 403)
  t.equal(await outcome(denying.socket('/public/ws', [], from('192.0.2.1'))), 'open')
})

t.test('a refused upgrade takes no turn of those that may come', async t => {
  const registry = await build(t, { admission: { upgradesPerSecond: 1, burst: 1 }, sockets: { allowedOrigins: ['https://app.example.com'] } })
  for (let i = 0; i < 5; i++) t.equal((await registry.socket('/public/ws', [], { origin: 'https://evil.example' }).refused).status, 403)
  t.equal(await outcome(registry.socket('/public/ws')), 'open')
})

const listed = ['https://app.example.com', 'http://localhost:3000/', 'HTTPS://*.Example.org', 'https://pr-*.preview.dev:8443', 'chrome-extension://abcdef', 'http://[::1]:8080']
const mayCome = [
  'https://app.example.com', 'HTTPS://APP.example.COM', 'https://app.example.com:443', 'http://localhost:3000', 'https://a.example.org', 'https://a-b.example.org:443',
  'https://pr-12.preview.dev:8443', 'chrome-extension://abcdef', 'http://[::1]:8080'
]
const mayNot = [
  'null', '', 'nonsense', 'http://app.example.com', 'https://app.example.com:8443', 'https://app.example.com.evil.net', 'https://evil-app.example.com', 'https://xapp.example.com',
  'https://appxexample.com', 'http://localhost', 'http://localhost:30000', 'https://example.org', 'https://a.b.example.org', 'https://evil.net/.example.org', 'https://evil.net?.example.org',
  'https://pr-1.x.preview.dev:8443', 'https://pr-1.preview.dev', 'chrome-extension://abcdefg', 'https://app.example.com, https://evil.net'
]

t.test('browsers may open sockets from the listed origins only, everything else may as before', async t => {
  const registry = await build(t, { sockets: { allowedOrigins: listed } })
  for (const path of paths) {
    const refusal = await registry.socket(path, [], { headers: { origin: 'https://evil.example' } }).refused
    t.equal(refusedAs(t, refusal), 'insufficient-permissions')
    t.equal(refusal.headers.connection, 'close')
    t.equal(await outcome(registry.socket(path, [], { headers: { origin: 'https://app.example.com' } })), 'open', path)
    t.equal(await outcome(registry.socket(path)), 'open', `${path}, no browser`)
  }
  for (const origin of mayCome) t.equal(await outcome(registry.socket('/public/ws', [], { headers: { origin } })), 'open', origin)
  for (const origin of mayNot) t.match(await outcome(registry.socket('/public/ws', [], { headers: { origin } })), { status: 403 }, `'${origin}'`)
  t.equal((await registry.get('/public/stats', { headers: { origin: 'https://evil.example' } })).status, 200, 'pages read over HTTP as the host says')
})

t.test('without a list, and with `*` in it, pages of every origin may', async t => {
  t.equal(originCheck([]), null)
  t.equal(originCheck(['https://app.example.com', '*']), null)
  t.ok(originCheck(['null'])!('null'), 'also pages without one, once they are listed')
  const registry = await build(t)
  for (const origin of ['https://evil.example', 'null']) t.equal(await outcome(registry.socket('/public/ws', [], { headers: { origin } })), 'open', origin)
})

t.test('what is no origin stops the start, and says which', async t => {
  for (const wrong of ['app.example.com', 'https://', 'https://a.com/path', 'https://u@a.com', 'https://a.com:99999', 'https://*.exa mple.com', 'https://a.com?x', '*.example.com']) {
    const app = fastify()
    const start = (async () => await app.register(agentRegistry, withDefaults({ sockets: { allowedOrigins: [wrong] } })))()
    await t.rejects(start, { code: 'AGENT_REGISTRY_INVALID_OPTIONS', message: /sockets\.allowedOrigins/ }, wrong)
    await app.close().catch(() => {})
  }
})

t.test('upgrades that come byte by byte, stop halfway or are wrong hold up nobody', async t => {
  const registry = await build(t)
  const { port } = registry.app.server.address() as AddressInfo
  const whole = 'GET /public/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n'
  const halves = Array.from({ length: 50 }, () => connect(port, '127.0.0.1'))
  for (const half of halves) half.write(whole.slice(0, -2))
  const slow = connect(port, '127.0.0.1')
  for (const byte of whole) {
    slow.write(byte)
    await sleep(1)
  }
  const [answer] = await once(slow, 'data')
  t.match(String(answer), /^HTTP\/1.1 101 /)
  await assertAlive(await registry.watcher())
  for (const socket of [...halves, slow]) socket.destroy()
  const wrong = connect(port, '127.0.0.1')
  wrong.end(whole.replace('Version: 13', 'Version: 1'))
  t.match(await text(wrong), /^HTTP\/1.1 400 /)
  t.equal(await placesOf(registry), 1)
})

/** Sockets that count on the public tier. */
async function placesOf (registry: Harness): Promise<number> {
  const { text } = await registry.get('/metrics', await registry.admin())
  return Number(/^arcp_websocket_connections\{tier="public"\} (\d+)/m.exec(text)?.[1])
}
