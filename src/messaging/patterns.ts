interface Node {
  readonly literals: Map<string, Node>
  one: Node | undefined
  /** How many patterns end here, and how many end here with `**`. */
  count: number
  rests: number
}

const newNode = (): Node => ({ literals: new Map(), one: undefined, count: 0, rests: 0 })

/**
 * Patterns of channels: segments joined by `/`, where `*` stands for one segment and `**`, as the last of them, for one
 * or more. The same pattern may be added several times, and is gone when it was removed as often.
 */
export class Patterns {
  readonly #root = newNode()
  #size = 0

  /** How many were added and not removed. */
  get size () { return this.#size }

  add (pattern: string): void {
    this.#size++
    this.#count(pattern, 1)
  }

  /** Of one that was added. */
  remove (pattern: string): void {
    this.#size--
    this.#count(pattern, -1)
  }

  matches (channel: string): boolean {
    return this.#size > 0 && matchesFrom(this.#root, channel.split('/'), 0)
  }

  #count (pattern: string, by: number) {
    const segments = pattern.split('/')
    const hasRest = segments.at(-1) === '**'
    if (hasRest) segments.pop()
    const path = [this.#root]
    for (const segment of segments) path.push(childOf(path.at(-1)!, segment))
    path.at(-1)![hasRest ? 'rests' : 'count'] += by
    if (by < 0) prune(path, segments)
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

function isEmpty ({ literals, one, count, rests }: Node): boolean {
  return count === 0 && rests === 0 && literals.size === 0 && one === undefined
}

function matchesFrom (node: Node, segments: readonly string[], depth: number): boolean {
  if (depth === segments.length) return node.count > 0
  if (node.rests > 0) return true
  const literal = node.literals.get(segments[depth]!)
  if (literal && matchesFrom(literal, segments, depth + 1)) return true
  return node.one !== undefined && matchesFrom(node.one, segments, depth + 1)
}
