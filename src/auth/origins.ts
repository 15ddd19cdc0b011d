import { OptionsError } from '../errors.js'

/** Whether a page of this `Origin` is allowed. */
export type OriginCheck = (origin: string) => boolean

/** Scheme, host and port in lower case, without a default port (RFC 6454 §4). */
function normalized (origin: string): string | undefined {
  if (!URL.canParse(origin)) return undefined
  const { origin: known, protocol, host } = new URL(origin)
  // URL gives schemes outside the web, such as those of browser extensions, the origin 'null'.
  return known === 'null' ? `${protocol}//${host}` : known
}

/** @throws AGENT_REGISTRY_INVALID_OPTIONS */
function patternOf (entry: string, option: string): RegExp {
  const origin = entry === 'null' ? entry : normalized(entry)
  if (origin === undefined) throw new OptionsError(`${option}: '${entry}' is not an origin`)
  return new RegExp(`^${origin.replace(/[.+?^${}()|[\]\\]/g, '\\$&').replaceAll('*', '[^.:/]+')}$`, 'i')
}

/**
 * Creates a check that compares whole origins. `*` in an entry matches one label of the host.
 * @param option the name of the option, for error messages
 * @returns null if every origin is allowed
 * @throws AGENT_REGISTRY_INVALID_OPTIONS for an entry that is not an origin
 */
export function originCheck (allowed: readonly string[], option = 'sockets.allowedOrigins'): OriginCheck | null {
  if (allowed.length === 0 || allowed.includes('*')) return null
  const patterns = allowed.map(entry => patternOf(entry, option))
  return function isAllowed (origin) {
    const given = origin === 'null' ? origin : normalized(origin)
    return given !== undefined && patterns.some(pattern => pattern.test(given))
  }
}
