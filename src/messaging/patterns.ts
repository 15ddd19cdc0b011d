interface Node {
  readonly literals: Map<string, Node>
  one: Node | undefined
  /** Whether a pattern ends here, and whether one does with `**`. */
  isEnd: boolean
  hasRest: boolean
}

const newNode = (): Node => ({ literals: new Map(), one: undefined, isEnd: false, hasRest: false })

/**
 * A set of patterns of channels: segments joined by `/`, where `*` stands for one segment and `**`, as the last of them,
 * for one or more.
 */
export class Patterns {
  readonly #patterns = new Set<string>()
  #root = newNode()

  get size () { return this.#patterns.size }

  [Symbol.iterator] () { return this.#patterns.values() }

  has (pattern: string): boolean {
    return this.#patterns.has(pattern)
  }

  add (pattern: string): void {
    this.#patterns.add(pattern)
    this.#mark(pattern, true)
  }

  /** @returns whether it was there */
  delete (pattern: string): boolean {
    if (!this.#patterns.delete(pattern)) return false
    this.#mark(pattern, false)
    return true
  }

  clear (): void {
    this.#patterns.clear()
    this.#root = newNode()
  }

  matches (channel: string): boolean {
    return this.#patterns.size > 0 && matchesFrom(this.#root, channel.split('/'), 0)
  }

  #mark (pattern: string, isThere: boolean) {
    const segments = pattern.split('/')
    const hasRest = segments.at(-1) === '**'
    if (hasRest) segments.pop()
    const path = [this.#root]
    for (const segment of segments) path.push(childOf(path.at(-1)!, segment))
    path.at(-1)![hasRest ? 'hasRest' : 'isEnd'] = isThere
    if (!isThere) prune(path, segments)
  }
}

function childOf (node: Node, segment: string): Node {
  if (segment === '*') return (node.one ??= newNode())
  const known = node.literals.get(segment)
  if (known) return known
  const child = newNode()
  node.literals.set(segment, child)
  return child
}

function prune (path: readonly Node[], segments: readonly string[]) {
  for (let depth = segments.length; depth > 0 && isEmpty(path[depth]!); depth--) {
    const parent = path[depth - 1]!
    if (segments[depth - 1] === '*') parent.one = undefined
    else parent.literals.delete(segments[depth - 1]!)
  }
}

function isEmpty ({ literals, one, isEnd, hasRest }: Node): boolean {
  return !isEnd && !hasRest && literals.size === 0 && one === undefined
}

function matchesFrom (node: Node, segments: readonly string[], depth: number): boolean {
  if (depth === segments.length) return node.isEnd
  if (node.hasRest) return true
  const literal = node.literals.get(segments[depth]!)
  if (literal && matchesFrom(literal, segments, depth + 1)) return true
  return node.one !== undefined && matchesFrom(node.one, segments, depth + 1)
}
