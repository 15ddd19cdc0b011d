// Clients that ask and clients that are asked, in a process of their own: how many requests get their reply.
import type { DialectName } from './dialects.js'
import { enter } from './enter.js'
import { FrameReader, frameText } from './frames.js'
import type { LightClient } from './light-client.js'
import { percentile } from './statistics.js'

const [dialect, askingPort, servingPort] = process.argv.slice(2) as [DialectName, string, string]

/** What each shows to get in. */
export interface CrewWish { asking: string[], serving: string[], capability: string, data: unknown, accepts: boolean }
/** So many requests of each of the first `askers` are under way, for `ms` milliseconds. */
export interface AskWish { askers: number, window: number, ms: number }
/** Times in milliseconds. */
export interface Asked { count: number, ms: number, p50: number, p99: number }
type Wish = CrewWish | AskWish

const responseStart = '{"type":"response","requestId":"'
const requestStart = '{"type":"request","rid":"'
const idLength = 4

/** Has each frame heard; what is to be said to those of one chunk leaves in one write. */
function converse (client: LightClient, answerTo: (payload: Buffer) => string): void {
  let answers = ''
  const reader = new FrameReader(payload => { answers += answerTo(payload) })
  client.take(chunk => {
    reader.push(chunk)
    if (answers !== '') client.socket.write(answers, 'latin1')
    answers = ''
  })
}

/** Accepts if it is to, and replies at once. */
function serve (client: LightClient, { data, accepts }: CrewWish): void {
  const rest = `,"data":${JSON.stringify(data)}}`
  converse(client, payload => {
    if (payload.toString('latin1', 0, requestStart.length) !== requestStart) return ''
    const rid = payload.toString('latin1', requestStart.length, payload.indexOf('"', requestStart.length))
    const reply = frameText(`{"type":"reply","rid":"${rid}"${rest}`)
    return accepts ? frameText(`{"type":"accept","rid":"${rid}"}`) + reply : reply
  })
}

/** Each of its ids is in use once; a reply lets it be used again. */
class Asker {
  readonly #client: LightClient
  readonly #frameOf: (id: number) => string
  readonly #sentAt: number[] = []
  #times: number[] = []
  #until = 0
  #missing = 0
  #ended: (times: number[]) => void = () => {}

  constructor (client: LightClient, { capability, data }: CrewWish) {
    this.#client = client
    this.#frameOf = id => frameText(JSON.stringify({ type: 'request', requestId: String(id).padStart(idLength, '0'), capability, data, timeoutMs: 60_000 }))
    converse(client, payload => this.#hear(payload))
  }

  /** @returns how long each request took (ms) */
  run (window: number, until: number): Promise<number[]> {
    this.#times = []
    this.#until = until
    this.#missing = window
    this.#client.socket.write(Array.from({ length: window }, (_, id) => this.#ask(id)).join(''), 'latin1')
    return new Promise(resolve => { this.#ended = resolve })
  }

  #ask (id: number): string {
    this.#sentAt[id] = performance.now()
    return this.#frameOf(id)
  }

  #hear (payload: Buffer): string {
    const text = payload.toString('latin1', 0, responseStart.length + idLength)
    if (!text.startsWith(responseStart)) {
      if (text.startsWith('{"type":"error"')) throw new Error(payload.toString())
      return ''
    }
    const id = Number(text.slice(responseStart.length))
    const now = performance.now()
    if (!this.#sentAt[id]) throw new Error(`a reply that is not due: ${payload}`)
    this.#times.push(now - this.#sentAt[id])
    this.#sentAt[id] = 0
    if (now < this.#until) return this.#ask(id)
    if (--this.#missing === 0) this.#ended(this.#times)
    return ''
  }
}

const askers: Asker[] = []

async function open (wish: CrewWish): Promise<true> {
  for (const token of wish.serving) serve(await enter({ port: Number(servingPort), dialect, token }), wish)
  for (const token of wish.asking) askers.push(new Asker(await enter({ port: Number(askingPort), dialect, token }), wish))
  return true
}

async function ask ({ askers: amount, window, ms }: AskWish): Promise<Asked> {
  const started = performance.now()
  const times = (await Promise.all(askers.slice(0, amount).map(each => each.run(window, started + ms)))).flat()
  return { count: times.length, ms: performance.now() - started, p50: percentile(times, 0.5), p99: percentile(times, 0.99) }
}

process.on('message', async (wish: Wish) => { process.send!('window' in wish ? await ask(wish) : await open(wish)) })
process.on('disconnect', () => process.exit(0))
process.send!({ port: 0 })
