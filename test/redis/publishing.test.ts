import t from 'tap'
import { build, sleep, until, type Client, type Harness, type Json } from '../support/harness.js'
import { answerTo, ask } from '../unit/sockets/channels-helper.js'
import { RedisServer } from '../support/redis-server.js'

const channel = 'workflows/run-1/results'
const outageMs = 10_000
const rates = { messagesPerSecond: 1_000_000, burst: 1_000_000 }

interface Published { readonly data: string, readonly answer: Promise<Json> }

/** Publishes all the time, and keeps what each publishing was answered. */
class Publisher {
  readonly published: Published[] = []
  readonly #client: Client
  readonly #name: string
  #isStopped = false

  constructor (client: Client, name: string) {
    this.#client = client
    this.#name = name
  }

  async run (): Promise<void> {
    while (!this.#isStopped) {
      const data = `${this.#name}-${this.published.length}`
      this.#client.send({ type: 'publish', requestId: data, channel, data, msgId: data })
      this.published.push({ data, answer: answerTo(this.#client, data) })
      await sleep(20)
    }
  }

  stop (): void {
    this.#isStopped = true
  }
}

t.test('publish: while Redis is stopped the publisher gets either an error or a confirmation', async t => {
  const server = await RedisServer.start()
  t.teardown(() => server.stop())
  const options = { storage: 'redis', redis: { url: server.path }, agentsWs: { ...rates, intervalMs: 60_000 }, messaging: { historyEntries: 10_000 } } as const
  const registries = [await build(t, options), await build(t, options)] as [Harness, Harness]
  const publishers: Publisher[] = []
  for (const [index, registry] of registries.entries()) {
    publishers.push(new Publisher(await registry.agentSocket(await registry.join(`agent-${index}`)), `p${index}`))
  }
  const running = Promise.all(publishers.map(async publisher => { await publisher.run() }))
  await sleep(500)
  server.freeze()
  await sleep(outageMs)
  server.thaw()
  const later = publishers.map(({ published }) => published.length)
  await until(async () => (await publishers[0]!.published.at(-1)!.answer).type === 'ack', 20_000)
  await sleep(500)
  for (const publisher of publishers) publisher.stop()
  await running

  const all = publishers.flatMap(({ published }) => published)
  const answers = await Promise.all(all.map(async ({ data, answer }) => ({ data, ...await answer })))
  t.ok(answers.every(({ type, code }) => type === 'ack' || code === 'storage_unavailable'), 'each publish was answered with one of the two')
  t.ok(answers.some(({ code }) => code === 'storage_unavailable'))
  t.ok(later.every((count, index) => count < publishers[index]!.published.length), 'the client resumes when Redis is back')

  const reader = await registries[1].agentSocket(await registries[1].join('agent-reader'))
  const acked = answers.filter(({ type }) => type === 'ack')
  const kept = new Map<string, Json>()
  for (let since: Json = { epoch: acked[0]!.epoch, offset: 0 }; ;) {
    const { messages } = await ask(reader, { type: 'history', channel, since, limit: 1000 })
    for (const message of messages) kept.set(message.data, message)
    if (messages.length === 0) break
    since = { epoch: messages.at(-1).epoch, offset: messages.at(-1).offset }
  }
  t.same(acked.filter(({ data, epoch, offset }) => kept.get(data)?.offset !== offset || kept.get(data)?.epoch !== epoch), [],
    'each acknowledged message is stored at its position')
  t.same([...kept.values()].map(({ offset }) => offset), Array.from(kept, (_, index) => index + 1), 'without a gap')

  const [refused] = answers.filter(({ code }) => code === 'storage_unavailable')
  const again = await ask(reader, { type: 'publish', channel, data: 'again', msgId: refused!.data })
  t.equal(again.type, 'ack')
  t.equal(again.duplicate, undefined, 'a msgId is scoped to its sender')
})
