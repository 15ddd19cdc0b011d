/** What a connection needs of a WebSocket; the plugin gives it one of `ws`. */
export interface Transport {
  /** Bytes that were sent and have not left yet. */
  readonly bufferedAmount: number
  readonly isOpen: boolean
  /** @param sent called when the text has been handed to the network, or the socket is gone */
  send (text: string, sent?: () => void): void
  ping (): void
  /** @param reason at most 123 bytes */
  close (code: number, reason: string): void
  terminate (): void
  /** Stops reading, so that the sender has to wait. */
  pause (): void
  resume (): void
}
