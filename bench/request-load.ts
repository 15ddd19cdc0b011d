// Agents that send requests and agents that reply to them, in a process of their own.
import type { ClientProtocolName } from './client-protocols.js'
import { connectClient } from './connect.js'
import { FrameReader, frameText } from './frames.js'
import type { LightClient } from './light-client.js'
import { percentile } from './statistics.js'

const [protocol, requesterPort, responderPort] = process.argv.slice(2) as [ClientProtocolName, string, string]

/** Opens the clients, given by their tokens. */
export interface OpenCommand { requesters: string[], responders: string[], capability: string, data: unknown, accepts: boolean }
/** Keeps `window` requests open on each of the first `clients` requesters, for `ms` milliseconds. */
export interface RunCommand { clients: number, window: number, ms: number }
/** Times in milliseconds. */
export interface RunResult { count: number, ms: number, p50: number, p99: number }
type Command = OpenCommand | RunCommand

const responseStart = '{"type":"response","requestId":"'
const requestStart = '{"type":"request","rid":"'
const idLength = 4

/** Passes each frame to `onFrame` and writes the frames that it returns, for each chunk in one write. */
function exchangeFrames (client: LightClient, onFrame: (payload: Buffer) => string): void {
  let output = ''
  const reader = new FrameReader(payload => { output += onFrame(payload) })
  client.readWith(chunk => {
    reader.push(chunk)
    if (output !== '') client.socket.write(output, 'latin1')
    output = ''
  })
}

/** Replies to each request at once, after an accept if the command asks for it. */
function respond (client: LightClient, { data, accepts }: OpenCommand): void {
  const rest = `,"data":${JSON.stringify(data)}}`
  exchangeFrames(client, payload => {
    if (payload.toString('latin1', 0, requestStart.length) !== requestStart) return ''
    const rid = payload.toString('latin1', requestStart.length, payload.indexOf('"', requestStart.length))
    const reply = frameText(`{"type":"reply","rid":"${rid}"${rest}`)
    return accepts ? frameText(`{"type":"accept","rid":"${rid}"}`) + reply : reply
  })
}

/** Uses each id for one open request at a time; a reply makes the id free again. */
class Requester {
  readonly #client: LightClient
  readonly #frameOf: (id: number) => string
  readonly #sentAt: number[] = []
  #times: number[] = []
  #until = 0
  #missing = 0
  #ended: (times: number[]) => void = () => {}

  constructor (client: LightClient, { capability, data }: OpenCommand) {
    this.#client = client
    this.#frameOf = id => {
      const requestId = String(id).padStart(idLength, '0')
      return frameText(JSON.stringify({ type: 'request', requestId, capability, data, timeoutMs: 60_000 }))
    }
    exchangeFrames(client, payload => this.#onFrame(payload))
  }

  /** @returns the duration of each request (ms) */
  run (window: number, until: number): Promise<number[]> {
    this.#times = []
    this.#until = until
    this.#missing = window
    this.#client.socket.write(Array.from({ length: window }, (_, id) => this.#nextRequest(id)).join(''), 'latin1')
    return new Promise(resolve => { this.#ended = resolve })
  }

  #nextRequest (id: number): string {
    this.#sentAt[id] = performance.now()
    return this.#frameOf(id)
  }

  #onFrame (payload: Buffer): string {
    const text = payload.toString('latin1', 0, responseStart.length + idLength)
    if (!text.startsWith(responseStart)) {
      if (text.startsWith('{"type":"error"')) throw new Error(payload.toString())
      return ''
    }
    const id = Number(text.slice(responseStart.length))
    const now = performance.now()
    if (!this.#sentAt[id]) throw new Error(`a reply without an open request: ${payload}`)
    this.#times.push(now - this.#sentAt[id])
    this.#sentAt[id] = 0
    if (now < this.#until) return this.#nextRequest(id)
    if (--this.#missing === 0) this.#ended(this.#times)
    return ''
  }
}

const requesters: Requester[] = []

async function open (command: OpenCommand): Promise<true> {
  for (const token of command.responders) respond(await connectClient({ port: Number(responderPort), protocol, token }), command)
  for (const token of command.requesters) {
    requesters.push(new Requester(await connectClient({ port: Number(requesterPort), protocol, token }), command))
  }
  return true
}

async function run ({ clients, window, ms }: RunCommand): Promise<RunResult> {
  const started = performance.now()
  const times = (await Promise.all(requesters.slice(0, clients).map(each => each.run(window, started + ms)))).flat()
  return { count: times.length, ms: performance.now() - started, p50: percentile(times, 0.5), p99: percentile(times, 0.99) }
}

process.on('message', async (command: Command) => { process.send!('window' in command ? await run(command) : await open(command)) })
process.on('disconnect', () => process.exit(0))
process.send!({ port: 0 })
