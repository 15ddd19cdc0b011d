import { problem } from '../../errors.js'
import { unavailable, type Connections } from './connections.js'
import type { BrokerScript } from './scripts/broker.js'

/** Nothing goes out before a broker is opened and after it was closed. */
export const closed = () => problem('storage-unavailable', 'The broker is not open')

/** Runs scripts of the broker while it is open. */
export class Calls {
  readonly #connections: Connections
  readonly #latest: () => string
  isOpen = false

  /** @param latest until when Redis may begin with what is sent now, by its clock; '' for ever */
  constructor (connections: Connections, latest: () => string) {
    this.#connections = connections
    this.#latest = latest
  }

  checkOpen (): void {
    if (!this.isOpen) throw closed()
  }

  /** @throws when Redis does not answer in time, or refuses */
  async run (script: BrokerScript, args: ReadonlyArray<string | number>): Promise<unknown> {
    try {
      return await this.#connections.run(script, 'broker', [this.#latest(), ...args])
    } catch (error) {
      throw unavailable(error)
    }
  }
}
