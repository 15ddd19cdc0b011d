import type { Replica } from '../registry/replica.js'

/**
 * A text that says the time of day is made once for every millisecond at most, and anew when something in the replica has
 * changed: whoever asks in between would get the same.
 *
 * @param make gives a text of now
 */
export function momentary (replica: Pick<Replica, 'version'>, make: () => string): () => string {
  let text = ''
  let madeAt = -1
  let version = -1
  return function textOfNow () {
    const now = Date.now()
    if (now === madeAt && version === replica.version) return text
    text = make()
    madeAt = now
    version = replica.version
    return text
  }
}
