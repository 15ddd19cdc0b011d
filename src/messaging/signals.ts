import type { MessageBroker } from '../storage/message-broker.js'

/** Hears what another process says about one topic. */
export type SignalListener = (from: string, body: string) => void

/** What processes say to each other, by topic. At most once, in order. */
export class Signals {
  readonly #broker: MessageBroker
  readonly #listeners = new Map<string, SignalListener>()

  constructor (broker: MessageBroker) {
    this.#broker = broker
  }

  /** One listener for each topic; a topic has no colon. */
  on (topic: string, listener: SignalListener): void {
    this.#listeners.set(topic, listener)
  }

  send (process: string, topic: string, body: string): void {
    this.#broker.sendToProcess(process, `${topic}:${body}`)
  }

  /** A topic that nobody knows is of a newer version. */
  received (from: string, text: string): void {
    const end = text.indexOf(':')
    this.#listeners.get(text.slice(0, end))?.(from, text.slice(end + 1))
  }
}
