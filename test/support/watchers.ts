import { get, type ClientRequest } from 'node:http'
import { WebSocket } from 'ws'
import { sleep, until, type Remote } from './harness.js'
import { View } from './watched-view.js'

export type Carrier = 'agents' | 'dashboard' | 'events'

/** Feeds a view from one registry; `closed` resolves when the transport has ended for any reason. */
interface Line { readonly closed: Promise<void>, cut (): void }

function openSocket (remote: Remote, carrier: Carrier, token: string, view: View): Line {
  const ws = new WebSocket(`${remote.base.replace('http', 'ws')}/${carrier}/ws`)
  const send = (frame: object) => ws.send(JSON.stringify(frame))
  const watch = () => send({ type: 'watch', ...(view.revision === undefined ? { snapshot: true } : { since: view.revision }) })
  ws.on('open', () => {
    send(carrier === 'dashboard' ? { type: 'auth', token } : { token, observe: true })
    watch()
  })
  ws.on('error', () => {})
  ws.on('message', data => {
    const text = String(data)
    if (!text.startsWith('{')) return
    const frame = JSON.parse(text)
    view.take(frame.type, frame)
  })
  return { closed: new Promise(resolve => { ws.once('close', () => resolve()) }), cut: () => ws.terminate() }
}

/** Reads blocks of Server-Sent Events. */
function eventParser (view: View) {
  let rest = ''
  return (text: string) => {
    const blocks = (rest + text).split('\n\n')
    rest = blocks.pop()!
    for (const block of blocks) {
      const [, type, data] = /^id: .*\nevent: (.+)\ndata: (.+)$/.exec(block) ?? []
      if (type !== undefined) view.take(type, JSON.parse(data!))
    }
  }
}

function openEvents (remote: Remote, token: string, view: View, more: Record<string, string>): Line {
  const from = view.revision
  const headers = { ...more, authorization: `Bearer ${token}`, ...(from !== undefined && { 'last-event-id': from }) }
  let request: ClientRequest
  const closed = new Promise<void>(resolve => {
    request = get(`${remote.base}/agents/events?snapshot=true`, { headers, agent: false }, response => {
      response.setEncoding('utf8').on('data', response.statusCode === 200 ? eventParser(view) : () => {})
      response.on('error', () => {}).on('close', () => resolve())
    })
    request.on('error', () => resolve())
  })
  return { closed, cut: () => { request.destroy() } }
}

export interface WatcherOptions {
  carrier: Carrier
  token: () => string
  /** Request options other than the token. */
  headers?: Record<string, string>
  /** The process to connect to next. */
  place: () => Remote
  view?: View
}

/** A client that watches the whole registry, and resumes at any process after a disconnect. */
export class Watcher {
  readonly view: View
  readonly #carrier: Carrier
  readonly #token: () => string
  readonly #headers: Record<string, string>
  readonly #place: () => Remote
  #line: Line | undefined
  #isOver = false

  constructor ({ carrier, token, headers = {}, place, view = new View() }: WatcherOptions) {
    this.view = view
    this.#carrier = carrier
    this.#token = token
    this.#headers = headers
    this.#place = place
    this.#follow()
  }

  /** Disconnects the current transport. */
  cut (): void {
    this.#line?.cut()
  }

  end (): void {
    this.#isOver = true
    this.cut()
  }

  /** Waits until the view has reached `revision`. */
  async reach (revision: string, within = 30_000): Promise<void> {
    const [epoch, n] = revision.split(':')
    await until(() => {
      const [ownEpoch, own] = this.view.revision?.split(':') ?? []
      return ownEpoch === epoch && Number(own) >= Number(n)
    }, within)
  }

  /** Waits for the next bookmark, which checks the state. */
  async bookmarked (): Promise<void> {
    const { tally } = this.view
    const { bookmarks } = tally
    await until(() => tally.bookmarks > bookmarks, 30_000)
  }

  async #follow (): Promise<void> {
    while (!this.#isOver) {
      const remote = this.#place()
      this.view.begin()
      this.#line = this.#carrier === 'events'
        ? openEvents(remote, this.#token(), this.view, this.#headers)
        : openSocket(remote, this.#carrier, this.#token(), this.view)
      await this.#line.closed
      await sleep(20 + Math.random() * 100)
    }
  }
}
