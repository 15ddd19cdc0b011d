import t from 'tap'
import type { Principal } from '../../../src/index.js'
import { build, fingerprint, sleep, until, type Client, type Harness, type Json } from '../../support/harness.js'
import { assertAlive, expired, forge, nextWhere, unsigned } from './helper.js'
import { bearer, dashboard, dashboards, firstFrames, strange, typesOf } from './dashboard-helper.js'

const path = '/dashboard/ws'
const roomy = { dashboardWs: { maxConnections: 50 }, sockets: { maxUnauthenticatedPerAddress: 64 } }

async function ticketFor (registry: Harness, { token, headers }: { token: string, headers: Record<string, string> }, tier = 'dashboard') {
  return (await registry.post('/ws-tickets', { token, headers, body: { tier } })).body.ticket
}

/** A socket whose first frame is `frame`. */
async function opened (registry: Harness, frame: unknown, query = ''): Promise<Client> {
  const client = registry.socket(path + query)
  await client.opened
  client.send(frame)
  return client
}

t.test('dashboard: a first frame, header, subprotocol or ticket opens it, and data frames follow in order', async t => {
  const registry = await build(t, roomy)
  const admin = await registry.admin()
  const { token } = admin
  const ways: Record<string, () => Promise<Client>> = {
    'first frame': () => opened(registry, { type: 'auth', token }),
    'first frame with a fingerprint': () => opened(registry, { type: 'auth', token, fingerprint }),
    'first frame beside a token in the query': () => opened(registry, { type: 'auth', token, fingerprint }, '?token=bad'),
    header: async () => registry.socket(path, [], bearer(token)),
    subprotocol: async () => registry.socket(path, ['agent-registry.json', `bearer.${token}`]),
    ticket: async () => registry.socket(`${path}?ticket=${await ticketFor(registry, admin)}`)
  }
  for (const [way, open] of Object.entries(ways)) {
    const client = await open()
    await client.next('logs')
    t.strictSame(typesOf(client).slice(0, 4), firstFrames, way)
    t.equal(client.ws.protocol, way === 'subprotocol' ? 'agent-registry.json' : '', `${way}: no secret is echoed`)
    t.strictSame(strange(client), [])
  }
})

t.test('dashboard: a token in the query is ignored, and the server waits for the first frame', async t => {
  const registry = await build(t, { ...roomy, dashboardWs: { timeoutMs: 600 } })
  const { token } = await registry.admin()
  const client = registry.socket(`${path}?token=${token}`)
  t.strictSame(await client.closed, { code: 4001, reason: 'Authentication timeout' })
  t.strictSame(client.all, [], 'without a frame')
})

t.test('dashboard: each wrong first frame has its code and reason, and no frame precedes it', async t => {
  const registry = await build(t, roomy)
  const [{ token }, agent, temp] = [await registry.admin(), await registry.join(), await registry.tempToken('agent-two')]
  const auth = (more: object) => ({ type: 'auth', ...more })
  const wrong: Array<[string, unknown, number, string]> = [
    ['another type', { type: 'refresh_request' }, 4001, 'Auth frame required'],
    ['no type', { token }, 4001, 'Auth frame required'],
    ['not JSON', 'hello', 4001, 'Auth frame required'],
    ['an array', '[1]', 4001, 'Auth frame required'],
    ['null', 'null', 4001, 'Auth frame required'],
    ['a number', '5', 4001, 'Auth frame required'],
    ['a prototype', `{"type":"auth","token":"${token}","__proto__":{}}`, 4001, 'Auth frame required'],
    ['no token', auth({}), 4001, 'Authentication token required'],
    ['an empty token', auth({ token: '' }), 4001, 'Authentication token required'],
    ['a token that is null', auth({ token: null }), 4001, 'Authentication token required'],
    ['a token that is a number', auth({ token: 5 }), 4001, 'Invalid token'],
    ['garbage', auth({ token: 'x.y.z' }), 4001, 'Invalid token'],
    ['expired', auth({ token: expired(token) }), 4001, 'Invalid token'],
    ['no signature', auth({ token: unsigned(token) }), 4001, 'Invalid token'],
    ['another secret', auth({ token: forge(token, {}, 'another secret of thirty-two characters') }), 4001, 'Invalid token'],
    ['no subject', auth({ token: forge(token, { sub: undefined }) }), 4001, 'Invalid token'],
    ['no session', auth({ token: forge(token, { sid: undefined }) }), 4001, 'Invalid token'],
    ['an unknown session', auth({ token: forge(token, { sid: 'nope' }) }), 4001, 'Invalid token'],
    ['an agent', auth({ token: agent }), 4003, 'Admin role required'],
    ['a temporary token', auth({ token: temp }), 4003, 'Admin role required']
  ]
  for (const [name, frame, code, reason] of wrong) {
    const client = await opened(registry, frame)
    t.strictSame(await client.closed, { code, reason }, name)
    t.strictSame(client.all, [], `${name}: without a frame`)
  }
})

t.test('authentication: a bad token in the upgrade is accepted and closed with a specific code', async t => {
  const registry = await build(t, roomy)
  const admin = await registry.admin()
  const { token } = admin
  const bad: Array<[string, string, number, string]> = [
    ['garbage', 'x.y.z', 4001, 'Invalid token'],
    ['expired', expired(token), 4002, 'Token expired'],
    ['an agent', await registry.join(), 4003, 'Admin role required'],
    ['temporary', await registry.tempToken('agent-two'), 4003, 'Admin role required']
  ]
  for (const [name, text, code, reason] of bad) {
    t.strictSame(await registry.socket(path, [], bearer(text)).closed, { code, reason }, `${name} by header`)
    t.strictSame(await registry.socket(path, ['agent-registry.json', `bearer.${text}`]).closed, { code, reason }, `${name} by subprotocol`)
  }
  const ticket = await ticketFor(registry, admin)
  await registry.socket(`${path}?ticket=${ticket}`).next('monitoring')
  const [spent, foreign] = [ticket, await ticketFor(registry, admin, 'agents')]
  for (const one of [spent, foreign, 'nope']) {
    t.strictSame(await registry.socket(`${path}?ticket=${one}`).closed, { code: 4001, reason: 'Invalid token' })
  }
  t.equal((await registry.socket(path, [`bearer.${token}`]).refused).status, 400, 'a token as the only subprotocol')
})

/** Whether a dashboard is accepted. */
const outcome = (client: Client): Promise<unknown> =>
  Promise.race([client.next('monitoring').then(() => 'in'), client.closed.then(({ code }) => code)])

t.test('dashboard: a sent fingerprint must match the session, and requiring one is an option', async t => {
  const frames: Array<[object, unknown, unknown]> = [
    [{ fingerprint }, 'in', 'in'],
    [{}, 'in', 4001],
    [{ fingerprint: null }, 'in', 4001],
    [{ fingerprint: '' }, 4001, 4001],
    [{ fingerprint: 'another' }, 4001, 4001],
    [{ fingerprint: 5 }, 4001, 4001]
  ]
  for (const [index, requireFingerprint] of [false, true].entries()) {
    const registry = await build(t, { ...roomy, dashboard: { requireFingerprint } })
    const admin = await registry.admin()
    const { token } = admin
    for (const [more, ...expected] of frames) {
      t.equal(await outcome(
        await opened(registry, { type: 'auth', token, ...more })
      ), expected[index], `${requireFingerprint} ${JSON.stringify(more)}`)
    }
    const headers: Array<[object, unknown, unknown]> = [
      [{ 'x-client-fingerprint': fingerprint }, 'in', 'in'], [{}, 'in', 4001], [{ 'x-client-fingerprint': 'another' }, 4001, 4001]
    ]
    for (const [more, ...expected] of headers) {
      t.equal(await outcome(
        registry.socket(path, [], bearer(token, more))
      ), expected[index], `header: ${requireFingerprint} ${JSON.stringify(more)}`)
    }
    t.equal(await outcome(registry.socket(`${path}?ticket=${await ticketFor(registry, admin)}`)), 'in', 'the ticket carries a fingerprint')
  }
})

t.test('dashboard: a logout closes the sockets of the session within a second, and its token is refused', async t => {
  const registry = await build(t, roomy)
  const [admin, other] = [await registry.admin(), await registry.admin('other')]
  const [first, second, neighbour] = [
    await dashboard(registry, admin.token), await dashboard(registry, admin.token), await dashboard(registry, other.token)
  ]
  const started = Date.now()
  t.equal((await registry.post('/auth/logout', admin)).status, 200)
  for (const client of [first, second]) t.strictSame(await client.closed, { code: 4001, reason: 'Session ended' })
  t.ok(Date.now() - started < 5000)
  t.equal((await (await opened(registry, { type: 'auth', token: admin.token })).closed).code, 4001)
  await assertAlive(neighbour)
})

t.test('dashboard: the end of the session is announced and closes with 4002', async t => {
  for (const sessionTimeoutMs of [1500, 2000, 2499]) {
    const registry = await build(t, { ...roomy, admin: { sessionTimeoutMs } })
    const client = await dashboard(registry, (await registry.admin()).token)
    t.strictSame(await client.closed, { code: 4002, reason: 'Token expired' })
    t.equal(client.all.filter(({ type }) => type === 'token_expiring').length, 1)
    t.strictSame(strange(client), [])
  }
})

t.test('dashboard: a valid later token replaces the first, and an invalid one changes nothing', async t => {
  const registry = await build(t, roomy)
  const [first, second] = [await registry.admin(), await registry.admin('second')]
  const client = registry.socket(path, [], bearer(first.token))
  await client.next('logs')
  client.send({ type: 'auth', token: first.token, fingerprint })
  await assertAlive(client)
  t.notOk(typesOf(client).includes('error'), 'a token frame after a header is no error')
  const bad: Array<[object, string]> = [
    [{ token: 'x.y.z' }, 'action_not_permitted'],
    [{ token: second.token, fingerprint }, 'action_not_permitted'],
    [{ token: await registry.join() }, 'action_not_permitted'],
    [{}, 'invalid_frame'],
    [{ token: 5 }, 'invalid_frame']
  ]
  for (const [more, code] of bad) {
    client.send({ type: 'auth', requestId: 'bad', ...more })
    t.match(await client.next('error'), { code, requestId: 'bad' }, JSON.stringify(Object.keys(more)))
  }
  client.send({ type: 'auth', token: second.token, fingerprint: 'second', requestId: 'good' })
  t.strictSame(await client.next('ack'), { type: 'ack', requestId: 'good' })
  await registry.post('/auth/logout', first)
  await assertAlive(client)
  await registry.post('/auth/logout', second)
  t.strictSame(await client.closed, { code: 4001, reason: 'Session ended' })
})

t.test('dashboard: frames pipelined after the token are handled after the first data frames, in order', async t => {
  const registry = await build(t, roomy)
  const { token } = await registry.admin()
  const client = await opened(registry, { type: 'auth', token, fingerprint })
  client.send({ type: 'dashboard_log', data: { level: 'info', message: 'The page is there', timestamp: new Date().toISOString() } })
  client.send({ type: 'agents_request', requestId: 'r1' })
  client.send({ type: 'pause_monitoring', requestId: 'r2' })
  client.send('ping')
  await client.next('pause_ack')
  t.strictSame(typesOf(client).filter(type => type !== 'pong').slice(0, 7), [...firstFrames, 'agents', 'agents_ack', 'pause_ack'])
  t.ok(typesOf(client).includes('pong'))
  await nextWhere(client, 'logs', ({ data }) => data.logs.some(({ message }: Json) => message === 'The page is there'))
})

t.test('dashboard: pings are answered before the token, and binary or oversized frames do not end the attempt', async t => {
  const registry = await build(t, roomy)
  const client = await opened(registry, ' Ping ')
  t.equal(await client.next(), 'pong')
  client.send({ type: 'ping', requestId: 'early' })
  t.match(await client.next(), { type: 'pong', requestId: 'early' })
  client.send(Buffer.from('x'))
  t.equal((await client.next()).code, 'unsupported_encoding')
  client.send({ type: 'auth', token: 'x'.repeat(80_000) })
  t.equal((await client.next()).code, 'message_too_large')
  client.send({ type: 'auth', token: (await registry.admin()).token })
  t.equal((await client.next()).type, 'monitoring')
})

t.test('dashboard: a full tier refuses the upgrade with a retry time', async t => {
  const registry = await build(
    t, { dashboardWs: { maxConnections: 2 }, sockets: { maxUnauthenticated: 4, maxUnauthenticatedPerAddress: 4 } }
  )
  const { token } = await registry.admin()
  const pending = Array.from({ length: 4 }, () => registry.socket(path))
  await Promise.all(pending.map(({ opened }) => opened))
  const { status, headers } = await registry.socket(path).refused
  t.strictSame([status, headers['retry-after']], [503, '5'], 'too many without a token')
  for (const client of pending.slice(0, 2)) {
    client.send({ type: 'auth', token })
    await client.next('logs')
  }
  const refused = await registry.socket(path, [], bearer(token)).refused
  t.match([refused.status, JSON.parse(refused.text)], [503, { type: '/problems/too-many-connections' }], 'too many with one')
  pending[2]!.send({ type: 'auth', token })
  t.strictSame(await pending[2]!.closed, { code: 1013, reason: 'Too many connections' }, 'the tier filled up meanwhile')
  pending[0]!.close()
  await until(async () => {
    const next = registry.socket(path, [], bearer(token))
    return await Promise.race([next.next('monitoring').then(() => true), next.refused.then(() => false)])
  })
})

const hostAdmin: Principal = {
  type: 'admin',
  role: 'admin',
  subject: 'host-admin',
  agentId: null,
  incarnation: null,
  tokenId: 'h',
  sessionId: null,
  expiresAt: null,
  scopes: [],
  keyDigest: null
}

t.test('dashboard: an admin of the host is accepted, and a socket that closes during the check leaves no state', async t => {
  let asked = 0
  const registry = await build(t, {
    ...roomy,
    authenticate: async token => {
      asked++
      await sleep(200)
      return token === 'host-token' ? hostAdmin : null
    }
  })
  const gone = await opened(registry, { type: 'auth', token: 'host-token' })
  await until(() => asked === 1)
  gone.terminate()
  await gone.closed
  const client = await dashboard(registry, 'host-token')
  t.match(client.all.at(-1).data.logs[0], { message: 'New connection (1 total)', user_id: 'host-admin' })
  client.send({ type: 'auth', token: 'host-token' })
  await until(() => asked === 3)
  client.terminate()
  await client.closed
  const next = await dashboard(registry, 'host-token')
  t.match(next.all.at(-1).data.logs[0].message, 'New connection (1 total)')
})

t.test('dashboard: a host that does not answer in time is an internal error, and the socket stays open', async t => {
  const registry = await build(t, { ...roomy, limits: { hookTimeoutMs: 50 }, authenticate: () => new Promise(() => {}) })
  const client = await opened(registry, { type: 'auth', token: 'whose', requestId: 'r' })
  t.match(await client.next(), { type: 'error', code: 'backend_error', requestId: 'r' })
  client.send({ type: 'auth', token: (await registry.admin()).token })
  t.equal((await client.next()).type, 'monitoring')
  t.equal((await registry.socket(path, [], bearer('whose')).refused).status, 503)
})

t.test('dashboard: a server that closes notifies all dashboards, also unauthenticated ones', async t => {
  const registry = await build(t, roomy)
  const [client] = await dashboards(registry, 1)
  const silent = registry.socket(path)
  await silent.opened
  const closing = registry.app.close()
  for (const each of [client!, silent]) {
    await each.next('going_away')
    t.strictSame(await each.closed, { code: 1001, reason: 'Going away' })
  }
  await closing
})
