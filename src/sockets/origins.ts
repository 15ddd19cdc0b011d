import { OptionsError } from '../errors.js'

/** Says of the `Origin` of an upgrade whether its page may open sockets. */
export type OriginCheck = (origin: string) => boolean

/** Scheme, host and port as they are compared: in lower case, without a default port (RFC 6454 §4). */
function normalized (origin: string): string | undefined {
  if (!URL.canParse(origin)) return undefined
  const { origin: known, protocol, host } = new URL(origin)
  // What is not of the web, such as the page of an extension, has no origin in the sense of URLs.
  return known === 'null' ? `${protocol}//${host}` : known
}

/** @throws AGENT_REGISTRY_INVALID_OPTIONS */
function patternOf (entry: string, option: string): RegExp {
  const origin = entry === 'null' ? entry : normalized(entry)
  if (origin === undefined) throw new OptionsError(`${option}: '${entry}' is not an origin`)
  return new RegExp(`^${origin.replace(/[.+?^${}()|[\]\\]/g, '\\$&').replaceAll('*', '[^.:/]+')}$`, 'i')
}

/**
 * Compares whole origins; `*` in an entry stands for one label of the host.
 * @param option that says so
 * @returns null when everybody may
 * @throws AGENT_REGISTRY_INVALID_OPTIONS for what is no origin
 */
export function originCheck (allowed: readonly string[], option = 'sockets.allowedOrigins'): OriginCheck | null {
  if (allowed.length === 0 || allowed.includes('*')) return null
  const patterns = allowed.map(entry => patternOf(entry, option))
  return function isAllowed (origin) {
    const said = origin === 'null' ? origin : normalized(origin)
    return said !== undefined && patterns.some(pattern => pattern.test(said))
  }
}
