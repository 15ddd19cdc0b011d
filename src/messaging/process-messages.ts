import type { MessageBroker } from '../storage/message-broker.js'

type ProcessMessageListener = (from: string, body: string) => void

/** Messages between the processes of a registry, by topic: delivered at most once, and in order. */
export class ProcessMessages {
  readonly #broker: MessageBroker
  readonly #listeners = new Map<string, ProcessMessageListener>()

  constructor (broker: MessageBroker) {
    this.#broker = broker
  }

  /** Sets the listener of a topic. @param topic without a colon */
  on (topic: string, listener: ProcessMessageListener): void {
    this.#listeners.set(topic, listener)
  }

  send (process: string, topic: string, body: string): void {
    this.#broker.sendToProcess(process, `${topic}:${body}`)
  }

  /** An unknown topic is ignored: the sender may run a newer version. */
  received (from: string, text: string): void {
    const end = text.indexOf(':')
    this.#listeners.get(text.slice(0, end))?.(from, text.slice(end + 1))
  }
}
