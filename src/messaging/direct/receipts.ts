import { randomBytes } from 'node:crypto'
import type { Deadlines } from '../../lib/deadlines.js'
import type { Signals } from '../signals.js'

/** Somebody who waits to hear that a message was given to its receiver. */
export interface Receipt {
  /** Says where the receipt goes; kept with the message. */
  readonly address: string
  /** False when nothing was heard in time. */
  readonly given: Promise<boolean>
  cancel (): void
}

export interface ReceiptsOptions { process: string, signals: Signals, deadlines: Deadlines, waitMs: number }

const topic = 'given'

/** Receipts between processes: the one that has the receiver tells the one that waits. */
export class Receipts {
  readonly #options: ReceiptsOptions
  readonly #open = new Map<string, (isGiven: boolean) => void>()

  constructor (options: ReceiptsOptions) {
    this.#options = options
    options.signals.on(topic, (_from, id) => { this.#open.get(id)?.(true) })
  }

  open (): Receipt {
    const { process, deadlines, waitMs } = this.#options
    const id = randomBytes(9).toString('base64url')
    let settle!: (isGiven: boolean) => void
    const given = new Promise<boolean>(resolve => { settle = resolve })
    const deadline = deadlines.after(waitMs, () => { end(false) })
    const end = (isGiven: boolean) => {
      this.#open.delete(id)
      deadlines.cancel(deadline)
      settle(isGiven)
    }
    this.#open.set(id, end)
    return { address: `${process} ${id}`, given, cancel: () => { end(false) } }
  }

  /** The message that came with this address was given to its receiver. */
  send (address: string): void {
    const [process, id] = address.split(' ')
    this.#options.signals.send(process!, topic, id!)
  }

  close (): void {
    for (const end of [...this.#open.values()]) end(false)
  }
}
