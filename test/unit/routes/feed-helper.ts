import { once } from 'node:events'
import { request, type IncomingMessage } from 'node:http'
import type { Harness, Json } from '../../support/harness.js'

export interface SentEvent { id: string, event: string, data: Json }

/** An event stream that queues events until a test reads them. */
export class EventReader {
  readonly #response: IncomingMessage
  readonly #waiting: Array<() => void> = []
  readonly all: SentEvent[] = []
  /** The id to resume from. */
  lastId = ''
  retryMs = 0
  comments = 0
  #rest = ''
  #read = 0
  #ended = false

  constructor (response: IncomingMessage) {
    this.#response = response
    response.setEncoding('utf8')
    response.on('data', (text: string) => this.#take(text))
    response.on('close', () => { this.#ended = true; this.#wake() })
    response.on('error', () => {})
  }

  get headers () { return this.#response.headers }
  get isOpen () { return !this.#ended }

  /** The next event of these kinds; others are skipped. */
  async next (...kinds: string[]): Promise<SentEvent> {
    const deadline = Date.now() + 10_000
    for (;;) {
      while (this.#read < this.all.length) {
        const found = this.all[this.#read++]!
        if (kinds.length === 0 || kinds.includes(found.event)) return found
      }
      if (this.#ended ||
        Date.now() > deadline) throw new Error(`No ${kinds.join(' or ')}; there were ${this.all.map(({ event }) => event).join(' ')}`)
      await new Promise<void>(resolve => { this.#waiting.push(resolve); setTimeout(resolve, 1000) })
    }
  }

  async closed (): Promise<void> {
    if (!this.#ended) await once(this.#response, 'close')
  }

  close (): void {
    this.#response.destroy()
  }

  #take (text: string) {
    const blocks = (this.#rest + text).split('\n\n')
    this.#rest = blocks.pop()!
    for (const block of blocks) this.#block(block.split('\n'))
    this.#wake()
  }

  #block (lines: string[]) {
    let [event, data] = ['message', '']
    for (const line of lines) {
      if (line.startsWith(':')) this.comments++
      else if (line.startsWith('id: ')) this.lastId = line.slice(4)
      else if (line.startsWith('retry: ')) this.retryMs = Number(line.slice(7))
      else if (line.startsWith('event: ')) event = line.slice(7)
      else data = line.slice('data: '.length)
    }
    if (data !== '') this.all.push({ id: this.lastId, event, data: JSON.parse(data) })
  }

  #wake () {
    for (const wake of this.#waiting.splice(0)) wake()
  }
}

/** Opens a stream on its own connection. @returns the response if it is not a stream */
export async function answerOf (registry: Harness, path: string, headers: Record<string, string>): Promise<IncomingMessage> {
  const sent = request(registry.base + path, { headers, agent: false })
  sent.on('error', () => {})
  sent.end()
  const [response] = await once(sent, 'response') as [IncomingMessage]
  return response
}

export async function events (
  registry: Harness, { token, query = '', headers = {} }: { token: string, query?: string, headers?: Record<string, string> }
): Promise<EventReader> {
  const response = await answerOf(registry, `/agents/events${query}`, { authorization: `Bearer ${token}`, ...headers })
  if (response.statusCode !== 200) throw new Error(`Answered ${response.statusCode}`)
  return new EventReader(response)
}

/** The text of a response that is not a stream. */
export async function textOf (response: IncomingMessage): Promise<string> {
  let text = ''
  for await (const chunk of response) text += chunk
  return text
}
