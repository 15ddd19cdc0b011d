import { readFile } from 'node:fs/promises'
import type { FastifyInstance } from 'fastify'
import type { Browser, Page } from 'playwright-core'
import t from 'tap'
import { build, type Harness, type Json } from '../support/harness.js'
import { peerToken, v1Options } from '../unit/sockets/v1-helper.js'
import { launch } from '../support/chromium.js'

t.setTimeout(120_000)

/** The browser build of the SDK. */
const sdk = await readFile('node_modules/@metered-ca/realtime/dist/index.umd.js')

/** Pages of a host application, served next to the registry. */
function addPages (app: FastifyInstance) {
  app.get('/page', async (_request, reply) =>
    reply.type('text/html').send('<!doctype html><title>peer</title><script src="/sdk.js"></script>'))
  app.get('/sdk.js', async (_request, reply) => reply.type('text/javascript').send(sdk))
}

/** Runs in the page: joins a room and records the events. */
async function joinRoom ({ url, token }: { url: string, token: string }) {
  const scope = globalThis as Json
  const sockets: Json[] = scope.sockets = []
  const peer = scope.peer = new scope.MeteredPeer.MeteredPeer({
    url,
    tokenProvider: async () => token,
    reconnect: { initialDelayMs: 50, maxDelayMs: 200 },
    webSocketFactory (address: string) {
      const socket = new scope.WebSocket(address)
      sockets.push(socket)
      return socket
    }
  })
  const events: string[] = scope.events = []
  peer.on('peer-joined', ({ peer: remote }: Json) => {
    events.push(`+${remote.id} ${remote.metadata?.username}`)
    remote.on('data-channel', ({ channel }: Json) => {
      channel.onmessage = ({ data }: Json) => { events.push(`channel ${remote.id} ${data}`) }
    })
  })
  peer.on('peer-left', ({ peer: remote }: Json) => { events.push(`-${remote.id}`) })
  peer.on('data', ({ senderPeerId, data, kind }: Json) => { events.push(`${kind} ${senderPeerId} ${data}`) })
  await peer.join('room')
}

/** A page with a peer that has joined the room. */
class Guest {
  readonly page: Page

  constructor (page: Page) {
    this.page = page
  }

  static async join (browser: Browser, registry: Harness, peerId: string): Promise<Guest> {
    const page = await browser.newPage()
    await page.goto(`${registry.base}/page`)
    const token = await peerToken(registry, peerId, { peerMetadata: { username: peerId } })
    await page.evaluate(joinRoom, { url: registry.base.replace('http', 'ws'), token })
    return new Guest(page)
  }

  /** Calls a method of the peer. */
  async call (name: string, ...args: unknown[]): Promise<void> {
    await this.page.evaluate(async ([name, args]: Json) => { await (globalThis as Json).peer[name](...args) }, [name, args])
  }

  async hears (event: string): Promise<void> {
    await this.page.waitForFunction(event => (globalThis as Json).events.includes(event), event, { timeout: 20_000 })
  }

  events (): Promise<string[]> {
    return this.page.evaluate(() => (globalThis as Json).events)
  }

  /** Closes the connection of the peer, as a network failure does. */
  async cut (): Promise<void> {
    await this.page.evaluate(() => (globalThis as Json).sockets.at(-1).close())
  }

  roster (): Promise<string[]> {
    return this.page.evaluate(() => (globalThis as Json).peer.remotePeers.map(({ id }: Json) => id).sort())
  }
}

t.test('SDK peers in browsers: peers join and leave, exchange messages, connect directly, and recover after a disconnect', async t => {
  const registry = await build(t, v1Options, { before: addPages })
  const browser = await launch(t)
  const alice = await Guest.join(browser, registry, 'alice')
  const bob = await Guest.join(browser, registry, 'bob')
  await alice.hears('+bob bob')
  await bob.hears('+alice alice')
  await alice.call('send', 'hello all')
  await bob.hears('broadcast alice hello all')
  await bob.call('sendTo', 'alice', 'hello alice')
  await alice.hears('direct bob hello alice')

  // Offers, answers and candidates go through the registry; data between the peers does not.
  await alice.page.evaluate(() => {
    const channel = (globalThis as Json).peer.remotePeers[0].pc.createDataChannel('line')
    channel.onopen = () => channel.send('hello directly')
  })
  await bob.hears('channel alice hello directly')

  const carol = await Guest.join(browser, registry, 'carol')
  for (const guest of [alice, bob]) await guest.hears('+carol carol')
  await alice.cut()
  await carol.call('close')
  await Guest.join(browser, registry, 'dave')
  await alice.hears('+dave dave')
  await alice.hears('-carol')
  t.same(await alice.roster(), ['bob', 'dave'])
  await bob.hears('+dave dave')
  t.same((await alice.events()).filter(event => event === '+bob bob'), ['+bob bob'])
  await bob.call('send', 'again')
  await alice.hears('broadcast bob again')
})
