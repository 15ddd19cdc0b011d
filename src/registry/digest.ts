import { createHash } from 'node:crypto'
import type { AgentRecord } from '../storage/agent-store.js'
import { revisionText } from './render.js'

const modulus = 1n << 64n

/** The first 8 bytes of SHA-256(`agent_id NUL revision NUL state`) as an unsigned integer. */
export function recordDigest (epoch: string, { id, revision, state }: Pick<AgentRecord, 'id' | 'revision' | 'state'>): bigint {
  const hash = createHash('sha256').update(`${id}\0${revisionText(epoch, revision)}\0${state}`).digest()
  return hash.readBigUInt64BE()
}

/** Sum modulo 2^64 of the digests of all records: the order in which they came does not matter. */
export class Digest {
  #sum = 0n

  add (part: bigint): void {
    this.#sum = (this.#sum + part) % modulus
  }

  remove (part: bigint): void {
    this.#sum = (this.#sum - part + modulus) % modulus
  }

  /** 16 hexadecimal digits. */
  toString (): string {
    return this.#sum.toString(16).padStart(16, '0')
  }
}
