/** Events by name, each with the types of its arguments: `{ closed: [connection: Connection, wasClean: boolean] }`. */
type EventMap<Events> = { readonly [Name in keyof Events]: readonly unknown[] }

type Listener<Arguments extends readonly unknown[]> = (...args: Arguments) => void

/**
 * Typed events with synchronous listeners, called in the order in which they subscribed.
 * A listener must not throw: the exception reaches the caller of `emit` and later listeners are not called.
 */
export class Emitter<Events extends EventMap<Events>> {
  /** Replaced on every change, so that a running `emit` is not affected by listeners that come and go. */
  readonly #listeners: { [Name in keyof Events]?: ReadonlyArray<Listener<Events[Name]>> } = {}

  /** @returns an unsubscribe function */
  on<Name extends keyof Events> (name: Name, listener: Listener<Events[Name]>): () => void {
    this.#listeners[name] = [...this.#listenersOf(name), listener]
    return () => { this.#listeners[name] = this.#listenersOf(name).filter(other => other !== listener) }
  }

  emit<Name extends keyof Events> (name: Name, ...args: Events[Name]): void {
    for (const listener of this.#listenersOf(name)) listener(...args)
  }

  /** @returns whether an event has listeners: a costly argument need not be computed without them */
  has (name: keyof Events): boolean {
    return this.#listenersOf(name).length > 0
  }

  #listenersOf<Name extends keyof Events> (name: Name): ReadonlyArray<Listener<Events[Name]>> {
    return this.#listeners[name] ?? []
  }
}
