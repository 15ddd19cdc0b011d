import t from 'tap'
import { WebSocket } from 'ws'
import { sleep, until, type Client, type Json } from '../support/harness.js'
import { channel, Nomad } from '../unit/messaging/nomad.js'
import { builtServer } from '../support/server-process.js'
import { ask } from '../unit/sockets/channels-helper.js'
import { startFleet, startRedis, type Member } from '../support/fleet.js'

const program = builtServer(t)
t.setTimeout(300_000)
const rates = { AGENT_WS_MESSAGES_PER_SECOND: '1000000', AGENT_WS_BURST: '1000000' }
const numbers = (count: number) => Array.from({ length: count }, (_, n) => n)

/** Publishes in order, and again what was not acknowledged when its process was killed. */
class Publisher {
  readonly #member: Member
  readonly #token: string
  readonly #owed = new Map<string, object>()
  #client: Client | undefined
  #isOver = false

  constructor (member: Member, token: string) {
    this.#member = member
    this.#token = token
  }

  get owed () { return this.#owed.size }

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
      if (text.startsWith('{"type":"ack"')) this.#owed.delete(JSON.parse(text).requestId)
    })
    client.ws.on('close', () => { this.open() })
    for (const frame of this.#owed.values()) client.send(frame)
    this.#client = client
  }

  close (): void {
    this.#isOver = true
    this.#client?.ws.terminate()
  }

  publish (data: number): void {
    const frame = { type: 'publish', channel, data, msgId: `m${data}`, requestId: `m${data}` }
    this.#owed.set(frame.requestId, frame)
    this.#client?.send(frame)
  }
}

t.test('messages: a subscriber with fifty disconnects and killed processes receives ten thousand messages once in order', async t => {
  const { redisUrl } = await startRedis(t)
  const members = await startFleet(t, { program, size: 2, redisUrl, env: { ...rates, MESSAGING_HISTORY_ENTRIES: '5000' } })
  const nomad = new Nomad(members, await members[0]!.agent('agent-nomad'))
  const publishers = await Promise.all(members.map(async (member, n) => new Publisher(member, await member.agent(`agent-${n}-publisher`))))
  for (const publisher of publishers) {
    await publisher.open()
    t.teardown(() => publisher.close())
  }
  await nomad.move()
  const total = 10_000
  let sent = 0

  async function publishAll () {
    while (sent < total) {
      await until(() => sent - nomad.heard.length < 3000, 60_000)
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
      await nomad.move()
    }
  }
  await Promise.all([publishAll(), cutAndMove()])
  await until(() => nomad.heard.length >= total && publishers.every(({ owed }) => owed === 0), 60_000)
  t.same(nomad.heard.map(({ offset }) => offset), numbers(total).map(n => n + 1))
  for (const parity of [0, 1]) {
    const own = nomad.heard.map(({ data }) => data).filter(data => data % 2 === parity)
    t.same(own, numbers(total / 2).map(n => 2 * n + parity), 'in the order in which one publisher sent them')
  }
  t.equal(nomad.recovered.length, 51)
  t.ok(nomad.recovered.every(Boolean))
  t.same(nomad.gaps, [])
})

/** Registers an agent however often that is turned away, and connects it. */
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
  const [here, there] = await startFleet(t, { program, size: 2, redisUrl, env: { ...rates, MESSAGING_PRESENCE_TTL: String(presenceTtlMs / 1000) } }) as [Member, Member]
  const watcher = await here.agentSocket(await here.agent('agent-watcher'))
  await ask(watcher, { type: 'subscribe', channel, presence: true })
  const moved = (key: 'joined' | 'left') => watcher.all.filter(({ type, snapshot }) => type === 'presence' && !snapshot).flatMap((frame: Json) => frame[key].map(({ peerId }: Json) => peerId)).sort()
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
