const rest = '**'

/** Whether a channel is one of those that a pattern names. */
export function matchesPattern (pattern: string, channel: string): boolean {
  return fits(pattern.split('/'), channel.split('/'), (wanted, segment) => wanted === '*' || wanted === segment)
}

/** Whether every channel that `pattern` names is one of those that `granted` names. */
export function isWithin (granted: string, pattern: string): boolean {
  return fits(granted.split('/'), pattern.split('/'), (wanted, segment) => segment !== rest && (wanted === '*' || wanted === segment))
}

function fits (wanted: readonly string[], segments: readonly string[], isRight: (wanted: string, segment: string) => boolean): boolean {
  const isOpen = wanted.at(-1) === rest
  const fixed = isOpen ? wanted.length - 1 : wanted.length
  if (isOpen ? segments.length <= fixed : segments.length !== fixed) return false
  return wanted.slice(0, fixed).every((segment, index) => isRight(segment, segments[index]!))
}
