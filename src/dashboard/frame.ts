/** Largest frame in bytes: common clients close the connection over 1 MiB. */
export const maxFrameBytes = 1_048_576
/** What the envelope and the members beside a list may take of that. */
export const envelopeBytes = 4_096

export type DataFrameType = 'monitoring' | 'health' | 'agents' | 'logs' | 'alert'

/** RFC 3339, UTC, milliseconds. */
export const isoTime = (ms: number) => new Date(ms).toISOString()

/**
 * The text of a dashboard frame.
 * @param at epoch milliseconds
 * @param data JSON text
 */
export function frameText (type: string, at: number, data: string): string {
  return `{"type":"${type}","timestamp":"${isoTime(at)}","data":${data}}`
}

/** `value` with at most `places` decimals; what is not finite is 0, which JSON can say. */
export function round (value: number, places: number): number {
  const factor = 10 ** places
  return Number.isFinite(value) ? Math.round(value * factor) / factor : 0
}

/** As many texts, from the first on, as fit into a JSON array of `maxBytes`. */
export function takeWithin (texts: Iterable<string>, maxBytes: number): string[] {
  const taken: string[] = []
  let bytes = 0
  for (const text of texts) {
    bytes += Buffer.byteLength(text) + 1
    if (bytes > maxBytes) break
    taken.push(text)
  }
  return taken
}
