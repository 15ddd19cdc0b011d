import { WebSocket } from 'ws'
import t, { type Test } from 'tap'
import { type Answer, type Client, type Json, keys, problemOf, registration, type Remote, sleep, until } from '../support/harness.js'
import { builtServer } from '../support/server-process.js'
import { type Member, startFleet, startRedis } from '../support/fleet.js'
import { channel, RoamingSubscriber } from '../support/roaming-subscriber.js'
import { ask } from '../unit/sockets/channels-helper.js'
import { nextWhere } from '../unit/sockets/helper.js'

t.setTimeout(300_000)

const program = builtServer(t)
const scrapeToken = 'a token for scraping'.replaceAll(' ', '-')

/** Two processes with one Redis, an admin of the first, and an agent that watches at the second. */
interface Scene { t: Test, a: Member, b: Member, admin: Awaited<ReturnType<Remote['admin']>> }

let scene!: Scene
t.before(async () => {
  const { redisUrl } = await startRedis(t)
  const [a, b] = await startFleet(t, { program, size: 2, redisUrl, env: { METRICS_SCRAPE_TOKEN: scrapeToken } }) as [Member, Member]
  scene = { t, a, b, admin: await a.admin() }
})

const revisionOf = ({ body }: Answer): string => body.revision

/** Options of an admin request that waits for a revision. */
const at = (revision: string) => ({ token: scene.admin.token, headers: { ...scene.admin.headers, 'x-min-revision': revision } })

/** The first change of `id` that this socket receives. */
async function changeOf (client: Client, id: string): Promise<Json> {
  for (;;) {
    const { changes } = await client.next('agents_delta', 10_000)
    const found = changes.find((change: Json) => change.agent_id === id)
    if (found) return found
  }
}

async function watching (client: Client): Promise<Client> {
  client.send({ type: 'watch', requestId: 'w' })
  await client.next('ack')
  return client
}

async function dashboardOf (remote: Remote, token: string): Promise<Client> {
  const client = remote.socket('/dashboard/ws')
  await client.opened
  client.send({ type: 'auth', token })
  await client.next('logs')
  return client
}

t.test('fleet: an agent registered at one process is visible at another to a request that waits for its revision', async t => {
  const { a, b, admin } = scene
  const sockets = [await b.watcher(), await b.agentSocket(admin.token), await dashboardOf(b, admin.token)]
  for (const socket of sockets) await watching(socket)
  for (let i = 0; i < 50; i++) {
    const registered = await a.register(`agent-seen-${i}`)
    const { status, body } = await b.get(`/agents/agent-seen-${i}`, at(revisionOf(registered)))
    t.match({
      status, body
    }, { status: 200, body: { agent_id: `agent-seen-${i}`, revision: revisionOf(registered), incarnation: registered.body.incarnation } })
  }
  for (const socket of sockets) {
    const change = await changeOf(socket, 'agent-seen-49')
    t.match(change, { op: 'put', reason: 'created', agent: { name: 'Agent One' } })
  }
  t.equal((await b.get('/agents/stats', admin)).body.registry_statistics.total_agents, 50)
  await until(async () =>
    /^agent_registry_agents\{status="alive"\} 50$/m.test((await b.get('/metrics/scrape', { token: scrapeToken })).text))
  const found = await b.get('/public/agent/agent-seen-49')
  t.equal(found.status, 200)
  for (const socket of sockets) socket.close()
})

t.test('fleet: a heartbeat counts at any process, also before the agent is known there', async t => {
  const { a, b } = scene
  const statuses = new Map<number, number>()
  for (let i = 0; i < 100; i++) {
    const token = await a.agent(`agent-early-${i}`)
    const { status } = await b.post(`/agents/agent-early-${i}/heartbeat`, { token })
    statuses.set(status, (statuses.get(status) ?? 0) + 1)
  }
  t.same([...statuses], [[200, 100]])
})

t.test('fleet: last_seen and reports of an agent are known at every process', async t => {
  const { a, b, admin } = scene
  const token = await a.agent('agent-lively')
  const beat = await b.post('/agents/agent-lively/heartbeat', { token })
  t.equal(beat.status, 200)
  await until(async () => (await a.get('/agents/agent-lively', admin)).body.last_seen === beat.body.last_seen)
  const reports = await Promise.all(Array.from({ length: 40 }, (_, i) =>
    [a, b][i % 2]!.post('/agents/agent-lively/metrics', { token, body: { response_time: 0.5, success: true, operation: 'test' } })))
  t.same([...new Set(reports.map(({ status }) => status))], [200])
  for (const remote of [a, b]) {
    await until(async () => (await remote.get('/agents/agent-lively/metrics', { token })).body.total_requests === 40)
  }
})

t.test('fleet: a patch without a revision applies also before the last change has arrived', async t => {
  const { a, b } = scene
  const token = await a.agent('agent-patched')
  await until(async () => (await b.get('/agents/agent-patched', { token })).status === 200)
  const statuses = new Set<number>()
  for (let i = 0; i < 50; i++) {
    await a.post('/agents/agent-patched/status', { token, body: { status: i % 2 ? 'alive' : 'draining' } })
    statuses.add((await b.patch('/agents/agent-patched', { token, body: { name: `Patched ${i}` } })).status)
  }
  t.same([...statuses], [200])
})

t.test('fleet: after an agent unregisters at one process, every write at another process is refused at once', async t => {
  const { a, b, admin } = scene
  const calls: Array<[what: string, run: (id: string) => Promise<Answer>]> = [
    ['heartbeat', id => a.post(`/agents/${id}/heartbeat`, admin)],
    ['status', id => a.post(`/agents/${id}/status`, { ...admin, body: { status: 'draining' } })],
    ['metrics', id => a.post(`/agents/${id}/metrics`, { ...admin, body: { response_time: 1, success: true, operation: 'x' } })],
    ['patch', id => a.patch(`/agents/${id}`, { ...admin, body: { name: 'Another name' } })],
    ['delete', id => a.delete(`/agents/${id}`, admin)]
  ]
  for (const [what, run] of calls) {
    for (let i = 0; i < 10; i++) {
      const id = `agent-going-${what}-${i}`
      const token = await a.agent(id)
      t.equal((await b.delete(`/agents/${id}`, { token })).status, 200)
      const answer = await run(id)
      t.equal(answer.status, 404, what)
      t.equal(problemOf(t, answer), 'agent-not-found')
    }
  }
})

t.test('fleet: unregistering at another process closes the socket of the agent', async t => {
  const { a, b } = scene
  const token = await a.agent('agent-leaver')
  const socket = await a.agentSocket(token)
  await b.delete('/agents/agent-leaver', { token })
  t.equal((await socket.closed).code, 4001)
})

t.test('fleet: a newer instance registered elsewhere replaces the older one, whose heartbeats no longer count', async t => {
  const { a, b } = scene
  const old = await a.agent('agent-twice')
  const socket = await a.agentSocket(old)
  const { status, body } = await b.post('/agents/register', { token: old, body: registration('agent-twice') })
  t.equal(status, 200)
  t.equal((await socket.closed).code, 4009)
  const refused = await a.post('/agents/agent-twice/heartbeat', { token: old })
  t.equal(refused.status, 409)
  t.equal(problemOf(t, refused), 'stale-incarnation')
  t.equal((await a.post('/agents/agent-twice/heartbeat', { token: body.access_token })).status, 200)
})

t.test('fleet: a logout at one process closes the sockets of the session at the other', async t => {
  const { a, b } = scene
  const admin = await a.admin('another browser')
  const sockets = [await dashboardOf(b, admin.token), await b.agentSocket(admin.token), await dashboardOf(a, admin.token)]
  t.equal((await a.post('/auth/logout', admin)).status, 200)
  for (const socket of sockets) t.equal((await socket.closed).code, 4001)
  const { status } = await b.get('/agents/stats', admin)
  t.equal(status, 401)
})

t.test('fleet: revoking a token at one process closes its sockets at all processes', async t => {
  const { a, b, admin } = scene
  const token = await a.agent('agent-revoked')
  const sockets = [await a.agentSocket(token), await b.agentSocket(token)]
  t.equal((await b.post('/tokens/revoke', { ...admin, body: { token } })).status, 200)
  for (const socket of sockets) t.equal((await socket.closed).code, 4001)
  for (const remote of [a, b]) t.equal((await remote.post('/agents/agent-revoked/heartbeat', { token })).status, 401)
})

t.test('fleet: a ticket issued by one process opens one socket across all processes', async t => {
  const { a, b } = scene
  const token = await a.agent('agent-ticket')
  const { ticket } = (await a.post('/ws-tickets', { token })).body
  const tries = [b, a, b, a].map(remote => remote.socket(`/agents/ws?ticket=${ticket}`))
  const outcomes = await Promise.all(tries.map(socket =>
    Promise.race([socket.next('auth_success').then(() => 'in'), socket.closed.then(({ code }) => code)])))
  t.same(outcomes.map(String).sort(), ['4001', '4001', '4001', 'in'])
  for (const socket of tries) socket.close()
})

t.test('fleet: a temporary token spent at one process is spent at the other', async t => {
  const { a, b } = scene
  const token = await a.tempToken('agent-temp')
  const body = registration('agent-temp')
  const first = await a.post('/agents/register', { token, body })
  const repeated = await b.post('/agents/register', { token, body })
  t.match([
    first, repeated
  ], [{ status: 200, body: { created: true } }, { status: 200, body: { created: true, incarnation: first.body.incarnation } }],
  'a repeat of the request gets the same response')
  const other = await b.post('/agents/register', { token, body: registration('agent-temp', { name: 'Something else' }) })
  t.equal(other.status, 401)
  t.equal((await b.delete('/agents/agent-temp', { token })).status, 401)
})

t.test('fleet: of concurrent registrations of one id with one shared key at both processes, one succeeds', async t => {
  const { a, b } = scene
  const tokens = await Promise.all(Array.from({ length: 10 }, (_, i) => [a, b][i % 2]!.tempToken('agent-race', keys.plain)))
  const answers = await Promise.all(tokens.map((token, i) =>
    [a, b][i % 2]!.post('/agents/register', { token, body: registration('agent-race') })))
  t.same(answers.map(({ status }) => status).sort(), [200, ...Array(9).fill(409)])
})

t.test('fleet: a process that ends logs it, and a restarted one has the complete state', async t => {
  const { a, b, admin } = scene
  const socket = await b.watcher()
  const [{ code }, { code: exit }] = await Promise.all([socket.closed, b.kill('SIGTERM')])
  t.same([code, exit], [1001, 0])
  const revision = revisionOf(await a.register('agent-meanwhile'))
  await b.restart()
  const { status, body } = await b.get('/agents/agent-meanwhile', at(revision))
  t.match([status, body.revision], [200, revision])
  const lists = await Promise.all([a, b].map(remote => remote.get('/agents', admin)))
  t.same(lists[0]!.body.map(
    (agent: Json) => [agent.agent_id, agent.revision, agent.state]
  ), lists[1]!.body.map((agent: Json) => [agent.agent_id, agent.revision, agent.state]))
})

const rates = { AGENT_WS_MESSAGES_PER_SECOND: '1000000', AGENT_WS_BURST: '1000000' }
const numbers = (count: number) => Array.from({ length: count }, (_, n) => n)

/** Publishes in order, and sends messages again that a killed process did not acknowledge. */
class Publisher {
  readonly #member: Member
  readonly #token: string
  readonly #pending = new Map<string, object>()
  #client: Client | undefined
  #isOver = false

  constructor (member: Member, token: string) {
    this.#member = member
    this.#token = token
  }

  get pending () { return this.#pending.size }

  async open (): Promise<void> {
    this.#client = undefined
    if (this.#isOver) return
    const client = await this.#member.agentSocket(this.#token).catch(() => undefined)
    if (client?.ws.readyState === WebSocket.OPEN) this.#take(client)
    else setTimeout(() => { this.open() }, 50)
  }

  #take (client: Client) {
    client.ws.on('message', data => {
      const text = data.toString()
      if (text.startsWith('{"type":"ack"')) this.#pending.delete(JSON.parse(text).requestId)
    })
    client.ws.on('close', () => { this.open() })
    for (const frame of this.#pending.values()) client.send(frame)
    this.#client = client
  }

  close (): void {
    this.#isOver = true
    this.#client?.ws.terminate()
  }

  publish (data: number): void {
    const frame = { type: 'publish', channel, data, msgId: `m${data}`, requestId: `m${data}` }
    this.#pending.set(frame.requestId, frame)
    this.#client?.send(frame)
  }
}

t.test('messages: a subscriber with fifty disconnects and killed processes receives ten thousand messages once in order', async t => {
  const { redisUrl } = await startRedis(t)
  const members = await startFleet(t, { program, size: 2, redisUrl, env: { ...rates, MESSAGING_HISTORY_ENTRIES: '5000' } })
  const roaming = new RoamingSubscriber(members, await members[0]!.agent('agent-roaming'))
  const publishers = await Promise.all(members.map(async (member, n) => new Publisher(member, await member.agent(`agent-${n}-publisher`))))
  for (const publisher of publishers) {
    await publisher.open()
    t.teardown(() => publisher.close())
  }
  await roaming.move()
  const total = 10_000
  let sent = 0

  async function publishAll () {
    while (sent < total) {
      await until(() => sent - roaming.received.length < 3000, 60_000)
      for (let n = 0; n < 50; n++, sent++) publishers[sent % 2]!.publish(sent)
      await sleep(5)
    }
  }
  async function cutAndMove () {
    for (let cuts = 0; cuts < 50; cuts++) {
      const target = Math.min(sent + 100, total)
      await until(() => sent >= target, 60_000)
      if (cuts % 15 === 10) {
        const victim = members[cuts % 2]!
        await victim.kill()
        await victim.restart()
      }
      await roaming.move()
    }
  }
  await Promise.all([publishAll(), cutAndMove()])
  await until(() => roaming.received.length >= total && publishers.every(({ pending }) => pending === 0), 60_000)
  t.same(roaming.received.map(({ offset }) => offset), numbers(total).map(n => n + 1))
  for (const parity of [0, 1]) {
    const own = roaming.received.map(({ data }) => data).filter(data => data % 2 === parity)
    t.same(own, numbers(total / 2).map(n => 2 * n + parity), 'in the order in which one publisher sent them')
  }
  t.equal(roaming.recovered.length, 51)
  t.ok(roaming.recovered.every(Boolean))
  t.same(roaming.gaps, [])
})

/** Registers an agent, with retries while it is refused, and connects it. */
async function joinChannel (member: Member, id: string): Promise<void> {
  let token: string | undefined
  while (!token) {
    token = await member.agent(id)
    if (!token) await sleep(100)
  }
  await ask(await member.agentSocket(token), { type: 'subscribe', channel })
}

t.test('presence: five hundred peers of a killed process leave once each within the presence TTL', async t => {
  const presenceTtlMs = 9000
  const { redisUrl } = await startRedis(t)
  const [here, there] = await startFleet(
    t, { program, size: 2, redisUrl, env: { ...rates, MESSAGING_PRESENCE_TTL: String(presenceTtlMs / 1000) } }
  ) as [Member, Member]
  const watcher = await here.agentSocket(await here.agent('agent-watcher'))
  await ask(watcher, { type: 'subscribe', channel, presence: true })
  const moved = (key: 'joined' | 'left') => watcher.all.filter(({ type, snapshot }) =>
    type === 'presence' && !snapshot).flatMap((frame: Json) => frame[key].map(({ peerId }: Json) => peerId)).sort()
  const ids = numbers(500).map(n => `agent-${String(n).padStart(3, '0')}`)
  for (let n = 0; n < ids.length; n += 20) await Promise.all(ids.slice(n, n + 20).map(id => joinChannel(there, id)))
  await until(() => moved('joined').length === ids.length, 20_000)
  await there.kill()
  const begun = performance.now()
  await until(() => moved('left').length >= ids.length, 5 * presenceTtlMs)
  const took = performance.now() - begun
  t.ok(took < presenceTtlMs, `it took ${took.toFixed(0)} ms`)
  await there.restart()
  await sleep(1000)
  t.same([moved('joined'), moved('left')], [ids, ids])
  t.same((await ask(watcher, { type: 'presence', channel })).joined.map(({ peerId }: Json) => peerId), ['agent-watcher'])
})

const presenceTtlMs = 2000
const env = { MESSAGING_PRESENCE_TTL: String(presenceTtlMs / 1000) }
const capability = 'summarise'
const of = (client: Client, id: string) => client.all.find(({ type, requestId }: Json) => requestId === id && type !== 'request')

async function answerOf (client: Client, id: string, within: number): Promise<Json> {
  await until(() => of(client, id), within)
  return of(client, id)
}

t.test('requests: agents of a killed process leave within the presence TTL, and their requests end', async t => {
  const { redisUrl } = await startRedis(t)
  const [here, there] = await startFleet(t, { program, size: 2, redisUrl, env })
  const one = await here!.agentSocket(await here!.agent('agent-one'))
  const able = { capabilities: [capability] }
  const token = await there!.agent('agent-two', able)
  const two = await there!.agentSocket(token)
  const ask = (requestId: string, more: object = {}) => {
    one.send({ type: 'request', requestId, capability, data: requestId, timeoutMs: 60_000, ...more })
  }
  await until(async () => {
    const requestId = `probe-${Math.random()}`
    one.send({ type: 'send', to: 'agent-two', data: null, requestId })
    return (await answerOf(one, requestId, 5000)).delivered
  })
  for (const [requestId, more] of Object.entries(
    { accepted: {}, once: { idempotent: false }, named: { capability: undefined, to: 'agent-two' } }
  )) {
    ask(requestId, more)
    const { rid } = await nextWhere(two, 'request', ({ data }) => data === requestId)
    if (requestId !== 'accepted') continue
    two.send({ type: 'accept', rid, requestId: rid })
    t.match(await answerOf(two, rid, 5000), { type: 'ack' })
  }
  const three = await here!.agentSocket(await here!.agent('agent-three', able))
  await there!.kill()
  ask('moved')
  const moved = await nextWhere(three, 'request', ({ data }) => data === 'moved')
  three.send({ type: 'reply', rid: moved.rid, data: 'done' })
  for (const requestId of ['accepted', 'once', 'named']) {
    t.match(await answerOf(one, requestId, 5 * presenceTtlMs), { code: 'agent_offline', requestId })
  }
  t.match(await answerOf(one, 'moved', 1000), { type: 'response', from: 'agent-three', data: 'done' })
  one.send({ type: 'request', requestId: 'gone', to: 'agent-two', data: null, timeoutMs: 60_000 })
  t.match(await answerOf(one, 'gone', 1000), { code: 'agent_offline' })
  one.send({ type: 'send', requestId: 'kept', to: 'agent-two', data: 'kept' })
  t.match(await answerOf(one, 'kept', 1000), { type: 'ack', delivered: false })
  await there!.restart()
  const back = await there!.agentSocket(token)
  back.send({ type: 'inbox', requestId: 'inbox' })
  await nextWhere(back, 'direct', ({ data }) => data === 'kept')
})

t.test('requests: an agent whose requester\'s process was killed learns on reply that the request is gone', async t => {
  const { redisUrl } = await startRedis(t)
  const [here, there] = await startFleet(t, { program, size: 2, redisUrl, env })
  const two = await there!.agentSocket(await there!.agent('agent-two'))
  const one = await here!.agentSocket(await here!.agent('agent-one'))
  await sleep(200)
  one.send({ type: 'request', requestId: 'r', to: 'agent-two', data: null, timeoutMs: 60_000 })
  const { rid } = await two.next('request')
  await here!.kill()
  two.send({ type: 'reply', rid, data: 'for nobody', requestId: 'p' })
  t.match(await answerOf(two, 'p', 25_000), { code: 'unknown_request' })
})
