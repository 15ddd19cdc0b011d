import { randomBytes } from 'node:crypto'
import t from 'tap'
import { headerSize } from '../../../src/protocol/encoded-message.js'
import { build, until, type Client, type Harness } from '../../support/harness.js'
import { assertAlive } from '../sockets/helper.js'
import { rawOf } from '../sockets/pairs.js'

const scrapeToken = 'a-token-for-prometheus'
const quiet = { intervalMs: 600_000, pingIntervalMs: 600_000 }
const options = { metricsScrapeToken: scrapeToken, publicWs: quiet, agentsWs: quiet, dashboardWs: quiet, sockets: { agentsUpdateIntervalMs: 600_000 } }

/** Series of sockets by name and labels, without what their names begin with. */
async function scrape (registry: Harness): Promise<Map<string, number>> {
  const { text } = await registry.get('/metrics/scrape', { token: scrapeToken })
  return new Map([...text.matchAll(/^(?:agent_registry|arcp)_websocket_(\S+) (\S+)$/gm)].map(([, name, value]) => [name!, Number(value)]))
}

const out = (tier: string) => `{tier="${tier}",direction="out"}`
const into = (tier: string) => `{tier="${tier}",direction="in"}`
const of = (tier: string) => `{tier="${tier}"}`

/** Every series whose value is another than it was, and by how much. */
async function since (registry: Harness, before: Map<string, number>): Promise<Record<string, number>> {
  return Object.fromEntries([...await scrape(registry)].map(([name, value]) => [name, value - (before.get(name) ?? 0)] as const).filter(([, by]) => by !== 0))
}

/** Messages of a client as they went over the wire, in bytes. */
function measure (client: Client) {
  const measured = { frames: 0, bytes: 0 }
  client.ws.on('message', (data: Buffer) => {
    measured.frames++
    measured.bytes += headerSize(data.length) + data.length
  })
  return measured
}

function sendTogether (client: Client, texts: string[]) {
  rawOf(client.ws).cork()
  for (const text of texts) client.ws.send(text)
  rawOf(client.ws).uncork()
}

t.test('what goes in and out is counted by tier, frame by frame, byte by byte and write by write', async t => {
  const registry = await build(t, options)
  const begin = await scrape(registry)
  const client = registry.socket('/public/ws')
  const measured = measure(client)
  await client.next('welcome')
  t.strictSame(await since(registry, begin), {
    [`connections${of('public')}`]: 1,
    [`frames_total${out('public')}`]: 1,
    [`bytes_total${out('public')}`]: measured.bytes,
    [`writes_total${of('public')}`]: 1
  })
  const opened = await scrape(registry)
  const [texts, before] = [['{"type":"ping"}', 'ping', '{"type":"ping","requestId":"é"}', '{"type":"nope"}'], { ...measured }]
  sendTogether(client, texts)
  await client.next('error')
  t.strictSame(await since(registry, opened), {
    [`frames_total${into('public')}`]: 4,
    [`bytes_total${into('public')}`]: Buffer.byteLength(texts.join('')),
    [`frames_total${out('public')}`]: 4,
    [`bytes_total${out('public')}`]: measured.bytes - before.bytes,
    [`writes_total${of('public')}`]: 1
  })
  t.equal(measured.frames, 5)
  client.close()
  await client.closed
  await until(async () => (await scrape(registry)).get(`connections${of('public')}`) === 0)
})

t.test('so are binary frames, of the tier that they are of', async t => {
  const registry = await build(t, options)
  const token = await registry.join()
  const begin = await scrape(registry)
  const client = registry.socket('/agents/ws', ['agent-registry.msgpack', `bearer.${token}`])
  const measured = measure(client)
  await client.next('list')
  client.send({ type: 'ping' })
  await client.next('pong')
  const changed = await since(registry, begin)
  t.equal(changed[`frames_total${out('agents')}`], measured.frames)
  t.equal(changed[`bytes_total${out('agents')}`], measured.bytes)
  t.equal(changed[`frames_total${into('agents')}`], 1)
  t.ok(changed[`writes_total${of('agents')}`]! < measured.frames)
  t.notOk(Object.keys(changed).some(name => /public|dashboard/.test(name)))
})

t.test('what is too much is counted and not acted on', async t => {
  const registry = await build(t, { ...options, publicWs: { ...quiet, messagesPerSecond: 1, burst: 5 } })
  const client = await registry.watcher()
  const begin = await scrape(registry)
  sendTogether(client, Array.from({ length: 12 }, () => '{"type":"ping"}'))
  await until(() => client.all.length === 13)
  t.match(await since(registry, begin), { [`frames_total${into('public')}`]: 12, [`rate_limited_frames_total${of('public')}`]: 7, [`frames_total${out('public')}`]: 12 })
})

t.test('who is behind and what waits is looked at when it is asked for', async t => {
  const registry = await build(t, { ...options, agentsWs: { ...quiet, intervalMs: 1 }, sockets: { maxBufferedBytes: 67_108_864 } })
  const { token } = await registry.admin()
  const [slow, neighbour] = [await registry.agentSocket(token), await registry.agentSocket(token)]
  const queue = async () => {
    const series = await scrape(registry)
    return { behind: series.get(`connections_behind${of('agents')}`)!, bytes: series.get(`waiting_bytes${of('agents')}`)!, superseded: series.get(`superseded_frames_total${of('agents')}`)! }
  }
  t.strictSame(await queue(), { behind: 0, bytes: 0, superseded: 0 })
  rawOf(slow.ws).pause()
  // Lists of nearly 1 MB, of which the newest waits while the slow reader is behind.
  for (let n = 0; (await queue()).superseded < 3; n++) {
    await registry.join(`agent-${n % 9}`, { metadata: { text: [randomBytes(70_000).toString('base64')] } })
    await assertAlive(neighbour)
  }
  const { behind, bytes } = await queue()
  t.equal(behind, 1)
  t.ok(bytes > 50_000 && bytes <= 67_108_864, `${bytes} bytes`)
  rawOf(slow.ws).resume()
  await until(async () => (await queue()).bytes === 0)
  t.equal((await queue()).behind, 0)
})

t.test('a slow reader that is closed counts once', async t => {
  const registry = await build(t, { ...options, sockets: { maxBufferedBytes: 1_000_000 } })
  for (let n = 0; n < 8; n++) await registry.join(`agent-${n}`, { metadata: { text: ['x'.repeat(100_000)] } })
  const [slow, neighbour] = [await registry.watcher(), await registry.watcher()]
  rawOf(slow.ws).pause()
  for (let n = 0; n < 60; n++) slow.send({ type: 'get_discovery' })
  await until(async () => (await scrape(registry)).get(`slow_closes_total${of('public')}`) === 1)
  await assertAlive(neighbour)
  rawOf(slow.ws).resume()
  t.equal((await slow.closed).code, 4008)
  t.equal((await scrape(registry)).get(`slow_closes_total${of('public')}`), 1)
})

t.test('there are as many series as tiers, whoever comes and whatever they send', async t => {
  const registry = await build(t, options)
  const before = [...(await scrape(registry)).keys()]
  const names = ['connections', 'frames_total', 'bytes_total', 'writes_total', 'superseded_frames_total', 'rate_limited_frames_total', 'slow_closes_total', 'connections_behind', 'waiting_bytes']
  t.strictSame([...new Set(before.map(name => name.slice(0, name.indexOf('{'))))].sort(), names.sort())
  for (const tier of ['public', 'agents', 'dashboard']) t.equal(before.filter(name => name.includes(`"${tier}"`)).length, names.length + 2, tier)
  for (let n = 0; n < 20; n++) {
    const client = await registry.agentSocket(await registry.join(`agent-${n}`))
    client.send({ type: `type-${n}` })
    await client.next('error')
    client.terminate()
  }
  t.strictSame([...(await scrape(registry)).keys()], before)
})
