import type { Batch } from './batch.js'
import type { Encoding } from '../protocol/encoded-message.js'
import type { Traffic } from './traffic.js'

/** What a connection needs of a WebSocket; the plugin gives it one of `ws`. */
export interface Transport {
  /** Bytes that were written and have not left yet. */
  readonly bufferedAmount: number
  readonly isOpen: boolean
  /** @param traffic counts what is written, and in how many writes */
  write (batch: Batch, encoding: Encoding, traffic: Traffic): void
  /** Calls back once nothing that was written waits any more; not at all when the socket is gone before. */
  whenDrained (drained: () => void): void
  /** What `write` writes leaves together. */
  together (write: () => void): void
  /** @param reason at most 123 bytes */
  close (code: number, reason: string): void
  terminate (): void
  /** Stops reading, so that the sender has to wait. */
  pause (): void
  resume (): void
}
