import t from 'tap'
import { WebSocket } from 'ws'
import { Remote, registration, sleep, until, keys, password, secret, type Json } from '../support/harness.js'
import { builtServer, start, urlOf } from '../support/server-process.js'

const program = builtServer(t)
const clientCount = 1000
const drainMs = 10_000
t.setTimeout(300_000)

const states = ['draining', 'maintenance', 'alive']

const width = 4
const meanPauseMs = 3000

/** An agent that pipelines status frames until its socket is closed, and reconnects at the announced time. */
class Pipeliner {
  readonly id: string
  acknowledged = 0
  sent = 0
  /** Frames sent before the shutdown announcement. */
  sentBefore = 0
  /** Time of the reconnect (ms by performance.now). */
  back: number | null = null
  readonly closed: Promise<number>
  readonly ready: Promise<void>
  readonly faults: string[] = []
  readonly #ws: WebSocket
  #slot: number | null = null

  constructor (base: string, id: string, token: string) {
    this.id = id
    this.#ws = new WebSocket(`${base.replace('http', 'ws')}/agents/ws`, { headers: { authorization: `Bearer ${token}` } })
    this.#ws.on('error', error => { this.faults.push(error.message) })
    this.closed = new Promise(resolve => { this.#ws.once('close', code => resolve(code)) })
    this.ready = new Promise(resolve => {
      this.#ws.on('message', data => {
        const text = String(data)
        if (!text.startsWith('{')) return
        const frame = JSON.parse(text)
        if (frame.type === 'auth_success') resolve()
        this.#take(frame)
      })
    })
  }

  get slot (): number | null { return this.#slot }

  /** Sends the next group of frames; their answers trigger the following group. */
  sendGroup (): void {
    for (let i = 0; i < width; i++) this.#say()
  }

  /** The status requested by the last acknowledged frame. */
  get wanted (): string | undefined {
    return this.acknowledged === 0 ? undefined : stateOf(this.acknowledged - 1)
  }

  #say () {
    if (this.#ws.readyState !== this.#ws.OPEN) return
    this.#ws.send(JSON.stringify({ type: 'status', status: stateOf(this.sent), requestId: String(this.sent) }))
    this.sent++
  }

  #take (frame: Json) {
    if (frame.type === 'going_away') this.#leave(frame.retryAfterMs)
    if (frame.type === 'error') this.faults.push(JSON.stringify(frame))
    if (frame.type !== 'ack') return
    if (frame.requestId !== String(this.acknowledged)) {
      this.faults.push(`${frame.requestId} was acknowledged after ${this.acknowledged - 1}`)
    }
    this.acknowledged++
    if (this.acknowledged === this.sent) setTimeout(() => { this.sendGroup() }, 2 * meanPauseMs * Math.random())
  }

  #leave (retryAfterMs: number) {
    this.#slot = retryAfterMs
    this.sentBefore = this.sent
    setTimeout(() => { this.back = performance.now() }, retryAfterMs)
  }
}

const stateOf = (n: number) => states[n % states.length]!

/** Access tokens of agents with these ids, requested a few at a time. */
async function registerAll (remote: Remote, ids: readonly string[]): Promise<string[]> {
  const admin = await remote.admin()
  const tokens: string[] = []
  for (let at = 0; at < ids.length; at += 50) {
    tokens.push(...await Promise.all(ids.slice(at, at + 50).map(async id => {
      const { body } = await remote.post('/agents/register', { ...admin, body: registration(id) })
      return body.access_token as string
    })))
  }
  return tokens
}

const sliceCount = 10

/** Counts the times in each slice of the `ms` after `from`; later times count in the last slice. */
function slices (times: readonly number[], from: number, ms: number): number[] {
  const counts = new Array<number>(sliceCount).fill(0)
  for (const time of times) counts[Math.min(sliceCount - 1, Math.floor((time - from) * sliceCount / ms))]!++
  return counts
}

t.test(`drain: ${clientCount} clients that pipeline frames disconnect in turn, and no acknowledged frame is lost`, async t => {
  const env = {
    PORT: '0',
    STORE: 'level',
    ARCP_DATA_DIR: `${t.testdir()}/data`,
    JWT_SECRET: secret,
    ADMIN_PASSWORD: password,
    AGENT_KEYS: Object.values(keys).join(),
    AGENT_HEARTBEAT_TIMEOUT: '3600',
    AGENT_WS_INTERVAL: '60',
    WEBSOCKET_MAX_CONNECTIONS: String(clientCount + 10),
    AGENT_WS_BURST: '1000',
    WEBSOCKET_BURST_PER_ADDRESS: '1000000',
    WEBSOCKET_DRAIN: String(drainMs / 1000),
    LOG_LEVEL: 'warn'
  }
  const folder = t.testdirName
  const first = start(t, folder, { env, args: [program] })
  const remote = new Remote(await urlOf(first))
  const ids = Array.from({ length: clientCount }, (_, i) => `agent-${i}`)
  const tokens = await registerAll(remote, ids)
  const clients: Pipeliner[] = []
  for (const [i, id] of ids.entries()) {
    const client = new Pipeliner(remote.base, id, tokens[i]!)
    clients.push(client)
    await client.ready
  }
  const dead = remote.socket('/public/ws')
  await dead.next('welcome')
  dead.ws.pause()
  for (const client of clients) client.sendGroup()
  await until(() => clients.every(({ acknowledged }) => acknowledged > width), 60_000)

  const started = performance.now()
  first.child.kill('SIGTERM')
  const codes = await Promise.all(clients.map(({ closed }) => closed))
  const { code, signal, err } = await first.ended
  const took = performance.now() - started
  await sleep(drainMs)
  t.strictSame([code, signal, err], [0, null, ''])
  t.strictSame([...new Set(codes)], [1001])
  t.strictSame(clients.flatMap(({ faults }) => faults).slice(0, 5), [])
  t.strictSame(clients.filter(({ acknowledged, sentBefore }) => acknowledged < sentBefore)
    .map(({ id, acknowledged, sentBefore }) => `${id} ${acknowledged} of ${sentBefore}`), [],
  'every frame sent before is answered')

  const announced = clients.map(({ slot }) => slot!)
  const counts = slices(announced, 0, drainMs)
  const times = clients.map(({ back }) => back!)
  const backs = slices(times, Math.min(...times), drainMs)
  t.comment(`${clients.reduce((sum, { acknowledged }) => sum + acknowledged, 0)} frames acknowledged; drained after ${Math.round(
    took
  )} ms; announced in slices of ${drainMs / sliceCount} ms: ${counts.join(' ')}; reconnected: ${backs.join(' ')}`)
  t.ok(Math.max(...counts) <= 2 * clientCount / sliceCount, 'the peak is at most twice the mean')
  t.ok(Math.max(...backs) <= 2 * clientCount / sliceCount, 'reconnects are spread too')
  dead.terminate()

  const second = start(t, folder, { env, args: [program] })
  const again = new Remote(await urlOf(second))
  const { body } = await again.get('/agents', await again.admin())
  const found = new Map<string, string>(body.map(({ agent_id: id, state }: Json) => [id, state]))
  const lost = clients.filter(({ id, sent, acknowledged }) => {
    // An unacknowledged frame may or may not have taken effect.
    const possible = Array.from({ length: sent - acknowledged + 1 }, (_, i) => stateOf(acknowledged - 1 + i))
    return !possible.includes(found.get(id)!)
  })
  t.strictSame(lost.map(({ id, wanted }) => `${id} wanted ${wanted}, is ${found.get(id)}`), [], 'every acknowledged frame has taken effect')
})
