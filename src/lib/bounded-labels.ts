/** Labels that may be told apart; the rest counts as one. */
const maxLabels = 50

/** Labels for what anybody may choose, such as types of agents: the first 50 by name, the rest as `other`. */
export class BoundedLabels {
  readonly #labels: Set<string>

  /** @param reserved labels that are told apart whatever comes */
  constructor (reserved: readonly string[] = []) {
    this.#labels = new Set(reserved.slice(0, maxLabels))
  }

  /** The label of `name`, which may become one of the 50. */
  of (name: string): string {
    if (this.#labels.size < maxLabels) this.#labels.add(name)
    return this.known(name)
  }

  /** The label of `name` when it is one already: what was refused takes no place from what was not. */
  known (name: string | undefined): string {
    if (name === undefined) return 'unknown'
    return this.#labels.has(name) ? name : 'other'
  }
}
