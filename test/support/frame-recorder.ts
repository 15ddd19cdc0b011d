import { once } from 'node:events'
import { decode, encode } from '@msgpack/msgpack'
import { WebSocket, type ClientOptions } from 'ws'
import type { AgentRegistryOptions } from '../../src/index.js'
import type { Harness, Json } from './harness.js'
import { normalise, RecordAbbreviator, sharedShape, shorten, textOf } from './shapes.js'

/** Options of a recorded registry: no lease and no interval ends within a run. */
export const recordedOptions = {
  routes: { docs: true, v1: true },
  lease: { durationMs: 3_600_000 },
  dashboardWs: { intervalMs: 3_600_000 },
  dashboard: { slowRequestMs: 3_600_000 }
} satisfies AgentRegistryOptions

const patienceMs = 10_000

/** Frames sent by timers: their order and number are not compared. */
const untimed = new Set(['ping', 'stats_update', 'bookmark', 'list', 'agents_update', 'agents_truncated'])

const nameOf = (frame: Json): string => {
  if (typeof frame === 'string') return frame
  return Array.isArray(frame) ? 'list' : frame.type
}

function frameOf (message: string | Buffer): Json {
  try {
    return JSON.parse(String(message))
  } catch {
    return String(message).trim().toLowerCase()
  }
}

/** The name of a client message in the AsyncAPI document. */
function sentName (message: string | Buffer): string | undefined {
  const frame = frameOf(message)
  if (typeof frame === 'string') return `text-${frame}`
  return frame?.type === undefined && frame?.token ? 'authenticate' : frame?.type
}

export interface SocketSettings { protocols?: string[], options?: ClientOptions }
type Entry = Record<string, unknown>

/** A client that records its frames in the order expected by a script. */
export class RecordedSocket {
  readonly entries: Entry[] = []
  readonly #recorder: FrameRecorder
  readonly #ws: WebSocket
  readonly #frames: Json[] = []
  readonly #ended: Promise<Entry>
  #wake = () => {}
  #barriers = 0

  readonly #isDashboard: boolean

  constructor (recorder: FrameRecorder, url: string, { protocols = [], options = {} }: SocketSettings) {
    this.#recorder = recorder
    this.#isDashboard = url.includes('/dashboard/')
    this.#ws = new WebSocket(url, protocols, options)
    this.#ws.on('error', () => {})
    this.#ws.on('message', (data: Buffer, isBinary) => { this.#push(data, isBinary) })
    this.#ended = Promise.race([this.#close(), this.#refusal()])
  }

  get isOpen (): boolean { return this.#ws.readyState === WebSocket.OPEN }

  async #close (): Promise<Entry> {
    const [code, reason] = await once(this.#ws, 'close')
    // Existing clients know these reasons; all others may change.
    const isKnown = code === 1008 || this.#isDashboard
    const text = isKnown ? textOf(String(reason)) : '<text>'
    return { closed: code, reason: reason.length > 0 ? text : '' }
  }

  async #refusal (): Promise<Entry> {
    const [, response] = await once(this.#ws, 'unexpected-response')
    let body = ''
    for await (const chunk of response) body += chunk
    this.#ws.terminate()
    return {
      refused: response.statusCode,
      headers: Object.keys(response.headers)
        .sort(),
      body: body === '' ? '' : normalise(JSON.parse(body))
    }
  }

  #push (data: Buffer, isBinary: boolean) {
    const text = String(data)
    if (isBinary) this.#frames.push(decode(data))
    else this.#frames.push(/^[[{]/.test(text) ? JSON.parse(text) : text)
    this.#wake()
  }

  /** Waits until the socket is open, and records the subprotocol that the server selected. */
  async opened (): Promise<this> {
    if (this.#ws.readyState === WebSocket.CONNECTING) await once(this.#ws, 'open')
    this.entries.push({ opened: this.#ws.protocol })
    return this
  }

  /** Sends an object as JSON, or a text or bytes unchanged, and waits for frames of these types. @returns these frames */
  async send (frame: unknown, ...types: string[]): Promise<Json[]> {
    const message = typeof frame === 'string' || Buffer.isBuffer(frame) ? frame : JSON.stringify(frame)
    this.entries.push({ sent: message === frame ? shorten(String(frame)) : normalise(frameOf(message)) })
    this.#recorder.addSent(message)
    this.#ws.send(message)
    return await this.expect(...types)
  }

  /** Sends an object as MessagePack. */
  async sendPacked (frame: object, ...types: string[]): Promise<Json[]> {
    this.entries.push({ sentPacked: normalise(frame) })
    this.#recorder.addSent(JSON.stringify(frame))
    this.#ws.send(encode(frame))
    return await this.expect(...types)
  }

  /** Waits for frames of these types in this order; frames sent by timers may come in between. @returns these frames */
  async expect (...types: string[]): Promise<Json[]> {
    const frames: Json[] = []
    for (const type of types) {
      const frame = await this.#next(type)
      frames.push(frame)
      this.entries.push({ received: this.#recorder.describe(frame) })
    }
    return frames
  }

  /** Waits for a frame sent by a timer, and records its shape only. */
  async await (type: string, isRight: (frame: Json) => boolean = () => true): Promise<void> {
    let frame = await this.#next(type)
    while (!isRight(frame)) frame = await this.#next(type)
    this.#recorder.addUntimed(type, frame)
  }

  /** Records a detail of a frame. */
  note (name: string, value: unknown): void {
    this.entries.push({ [name]: normalise(value) })
  }

  /** Waits until the server closes the connection or refuses the upgrade. */
  async ended (): Promise<void> {
    const end = await this.#ended
    for (const frame of this.#frames.splice(0)) this.#skip(frame, 'the end')
    this.entries.push(end)
  }

  /** Checks that the server has sent no other frame. */
  async settle (): Promise<void> {
    const requestId = `barrier-${this.#barriers++}`
    this.#ws.send(JSON.stringify({ type: 'ping', requestId }))
    const pong = await this.#next('pong')
    if (pong.requestId !== requestId) throw new Error(`Unexpected ${JSON.stringify(pong)}`)
  }

  /** Closes the connection normally. */
  async leave (): Promise<void> {
    this.#ws.close(1000)
    await this.ended()
  }

  async #next (type: string): Promise<Json> {
    for (;;) {
      const frame = await this.#take(type)
      if (nameOf(frame) === type) return frame
      this.#skip(frame, type)
    }
  }

  #skip (frame: Json, expected: string) {
    const name = nameOf(frame)
    if (!this.#recorder.isUntimed(name)) throw new Error(`Expected ${expected}, received ${JSON.stringify(frame)}`)
  }

  async #take (type: string): Promise<Json> {
    const deadline = Date.now() + patienceMs
    while (this.#frames.length === 0) {
      const wait = deadline - Date.now()
      if (wait <= 0) throw new Error(`No ${type} after ${JSON.stringify(this.entries.at(-1))}`)
      await new Promise<void>(resolve => {
        const timer = setTimeout(resolve, wait)
        this.#wake = () => { clearTimeout(timer); resolve() }
      })
    }
    return this.#frames.shift()
  }
}

/** Records the frames of a tier: those of each socket in order, and the shapes of those sent by timers. */
export class FrameRecorder {
  readonly #registry: Harness
  readonly #untimed: ReadonlySet<string>
  readonly #sockets = new Map<string, RecordedSocket>()
  readonly #shapes = new Map<string, Json[]>()
  readonly #sent = new Set<string | undefined>()
  readonly #records = new RecordAbbreviator()

  /** @param alsoUntimed types of frames that only this tier sends by timers */
  constructor (registry: Harness, alsoUntimed: readonly string[] = []) {
    this.#registry = registry
    this.#untimed = new Set([...untimed, ...alsoUntimed])
  }

  describe (frame: Json): unknown {
    // Log entries are sent by timers.
    return nameOf(frame) === 'logs' ? sharedShape([frame]) : this.#records.abbreviate(normalise(frame))
  }

  isUntimed (type: string): boolean { return this.#untimed.has(type) }

  addSent (message: string | Buffer): void { this.#sent.add(sentName(message)) }
  addUntimed (type: string, frame: Json): void {
    this.#shapes.set(type, [...this.#shapes.get(type) ?? [], frame])
  }

  /** @param name of the socket in the snapshot: its purpose */
  open (name: string, path: string, settings: SocketSettings = {}, registry = this.#registry): RecordedSocket {
    if (this.#sockets.has(name)) throw new Error(`There is a socket '${name}'`)
    const socket = new RecordedSocket(this, registry.base.replace('http', 'ws') + path, settings)
    this.#sockets.set(name, socket)
    return socket
  }

  /** Client messages of a tier in the AsyncAPI document that no socket has sent. */
  async unsent (tier: string): Promise<string[]> {
    const { body } = await this.#registry.get('/asyncapi.json')
    const prefix = `${tier}.receive.`
    const names = Object.keys(body.operations).filter(name => name.startsWith(prefix)).map(name => name.slice(prefix.length))
    return names.filter(name => !this.#sent.has(name))
  }

  /** The complete record, after checking that open sockets receive no other frame. */
  async finish () {
    for (const socket of this.#sockets.values()) if (socket.isOpen) await socket.settle()
    return {
      firstRecord: this.#records.first ?? null,
      sockets: Object.fromEntries([...this.#sockets].map(([name, { entries }]) => [name, entries])),
      untimed: Object.fromEntries([...this.#shapes].map(([type, frames]) => [type, sharedShape(frames)]))
    }
  }
}
