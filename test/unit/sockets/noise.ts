type Random = () => number

/** Random numbers from 0 to 1, the same for the same seed (mulberry32). */
export function seeded (seed: number): Random {
  let state = seed
  return function random () {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

const types = [
  'ping', 'pong', 'watch', 'unwatch', 'get_discovery', 'status', 'auth', 'pause_monitoring', 'resume_monitoring', 'refresh_request',
  'agents_request',
  'dashboard_log', 'dashboard_alert', 'clear_logs', 'clear_alerts', 'nope', '', '__proto__', 'constructor', 'toString', 'welcome', 'ack'
]
const names = [
  'since', 'snapshot', 'filter', 'page', 'page_size', 'agent_type', 'status', 'token', 'data', 'type', 'level', 'message', 'title',
  'severity', 'constructor', '__proto__', 'x'.repeat(200)
]
const atoms: readonly unknown[] = [
  null, true, false, 0, -1, 1.5, 1e308, '', 'alive', 'draining', 'testing', '2', 'ERROR', 'é\u0000\ud800', 'x'.repeat(300), ['cap one'], [],
  {}
]

/** Valid and invalid client frames, generated from random numbers. */
export class Noise {
  readonly #random: Random
  #count = 0

  constructor (seed: number) {
    this.#random = seeded(seed)
  }

  /** A frame, with its requestId if exactly one answer must come. */
  next (): { frame: string | Buffer, requestId?: string } {
    const kind = this.#random()
    if (kind < 0.7) return this.#request()
    if (kind < 0.76) return { frame: this.#bytes() }
    if (kind < 0.82) return { frame: this.#broken() }
    if (kind < 0.88) return { frame: JSON.stringify(this.#value(3)) }
    if (kind < 0.89) return { frame: this.#deep() }
    if (kind < 0.892) return { frame: JSON.stringify({ type: 'ping', pad: 'x'.repeat(this.#below(200_000)) }) }
    return { frame: this.#pick(['ping', 'pong', ' PING\n', '', '{', '[]', 'null', '{"type":"ping","__proto__":1}', '"ping"', '\ufeff{}']) }
  }

  #request () {
    const type = this.#random() < 0.95 ? this.#pick(types) : this.#value(2)
    const requestId = this.#random() < 0.9 ? `n${this.#count++}` : this.#value(1)
    const members = Array.from({ length: this.#below(5) }, () => [this.#pick(names.filter(name =>
      name !== 'type')), this.#value(3)] as const)
    const frame = JSON.stringify({ type, requestId, ...Object.fromEntries(members) })
    const expectsAnswer = typeof requestId === 'string' && /^n\d+$/.test(requestId) && type !== 'pong' && frame.length <= 4096
    return { frame, ...(expectsAnswer && { requestId }) }
  }

  #value (depth: number): unknown {
    const kind = depth === 0 ? 0 : this.#random()
    if (kind < 0.6) return this.#pick(atoms)
    const values = Array.from({ length: this.#below(4) }, () => this.#value(depth - 1))
    return kind < 0.8 ? values : Object.fromEntries(values.map(value => [this.#pick(names), value]))
  }

  #broken () {
    const { frame } = this.#request()
    const at = this.#below(frame.length)
    return this.#random() < 0.5 ? frame.slice(0, at) : frame.slice(0, at) + this.#pick(['}', '"', '\\', '\u0000', ',']) + frame.slice(at)
  }

  #deep () {
    const depth = this.#below(1900)
    return this.#random() < 0.5 ? '['.repeat(depth) + ']'.repeat(depth) : '{"type":'.repeat(depth >> 3) + '1' + '}'.repeat(depth >> 3)
  }

  #bytes () {
    return Buffer.from(Array.from({ length: this.#below(100) }, () => this.#below(256)))
  }

  #pick<T> (list: readonly T[]): T { return list[this.#below(list.length)]! }
  #below (limit: number) { return Math.floor(this.#random() * limit) }
}
