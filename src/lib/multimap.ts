/** A map with several values per key. Nearly all keys have one value, which is stored without a set. */
export class Multimap<K, V extends object> {
  readonly #groups = new Map<K, V | Set<V>>()

  /** @returns whether it is the first value of the key */
  add (key: K, value: V): boolean {
    const known = this.#groups.get(key)
    if (known instanceof Set) known.add(value)
    else if (known !== undefined && known !== value) this.#groups.set(key, new Set([known, value]))
    else this.#groups.set(key, value)
    return known === undefined
  }

  /** @returns whether it was the last value of the key */
  delete (key: K, value: V): boolean {
    const known = this.#groups.get(key)
    const isLast = known instanceof Set ? known.delete(value) && known.size === 0 : known === value
    return isLast && this.#groups.delete(key)
  }

  of (key: K): readonly V[] {
    const known = this.#groups.get(key)
    return known === undefined ? [] : known instanceof Set ? [...known] : [known]
  }

  * values (): Generator<V> {
    for (const known of this.#groups.values()) {
      if (known instanceof Set) yield * known
      else yield known
    }
  }
}
