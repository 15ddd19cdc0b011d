interface Node {
  readonly literals: Map<string, Node>
  one: Node | undefined
  /** The pattern that ends here, and the one that does so with `**`. */
  end: string | undefined
  rest: string | undefined
}

const newNode = (): Node => ({ literals: new Map(), one: undefined, end: undefined, rest: undefined })

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
    this.#mark(pattern, pattern)
  }

  /** @returns whether it was there */
  delete (pattern: string): boolean {
    if (!this.#patterns.delete(pattern)) return false
    this.#mark(pattern, undefined)
    return true
  }

  clear (): void {
    this.#patterns.clear()
    this.#root = newNode()
  }

  matches (channel: string): boolean {
    return this.find(channel) !== undefined
  }

  /** One of those that match. */
  find (channel: string): string | undefined {
    return this.#patterns.size > 0 ? findFrom(this.#root, channel.split('/'), 0) : undefined
  }

  #mark (pattern: string, mark: string | undefined) {
    const segments = pattern.split('/')
    const hasRest = segments.at(-1) === '**'
    if (hasRest) segments.pop()
    const path = [this.#root]
    for (const segment of segments) path.push(childOf(path.at(-1)!, segment))
    path.at(-1)![hasRest ? 'rest' : 'end'] = mark
    if (mark === undefined) prune(path, segments)
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

function isEmpty ({ literals, one, end, rest }: Node): boolean {
  return end === undefined && rest === undefined && literals.size === 0 && one === undefined
}

function findFrom (node: Node, segments: readonly string[], depth: number): string | undefined {
  if (depth === segments.length) return node.end
  if (node.rest !== undefined) return node.rest
  const literal = node.literals.get(segments[depth]!)
  const found = literal && findFrom(literal, segments, depth + 1)
  return found ?? (node.one && findFrom(node.one, segments, depth + 1))
}
