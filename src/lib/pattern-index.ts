interface Node<T> {
  readonly literals: Map<string, Node<T>>
  one: Node<T> | undefined
  /** Of the pattern that ends here, and of the one that does with `**`. */
  end: Set<T> | undefined
  rest: Set<T> | undefined
}

const newNode = <T>(): Node<T> => ({ literals: new Map(), one: undefined, end: undefined, rest: undefined })
const restSegment = '**'

/** Who wants to hear of the channels that a pattern matches; what a pattern means is as in `Patterns`. */
export class PatternIndex<T> {
  readonly #root = newNode<T>()
  #size = 0

  /** Subscribers, each as often as there are patterns that it was added with. */
  get size () { return this.#size }

  /** @returns whether nobody else has this pattern */
  add (pattern: string, subscriber: T): boolean {
    const segments = pattern.split('/')
    const kind = segments.at(-1) === restSegment ? 'rest' : 'end'
    if (kind === 'rest') segments.pop()
    let node = this.#root
    for (const segment of segments) node = childOf(node, segment)
    const known = (node[kind] ??= new Set())
    if (!known.has(subscriber)) this.#size++
    known.add(subscriber)
    return known.size === 1
  }

  /** @returns whether nobody has this pattern any more */
  delete (pattern: string, subscriber: T): boolean {
    const segments = pattern.split('/')
    const kind = segments.at(-1) === restSegment ? 'rest' : 'end'
    if (kind === 'rest') segments.pop()
    const path = pathOf(this.#root, segments)
    const node = path[segments.length]
    const known = node?.[kind]
    if (!node || !known?.delete(subscriber)) return false
    this.#size--
    if (known.size > 0) return false
    node[kind] = undefined
    prune(path, segments)
    return true
  }

  /** The subscribers of every pattern that matches, one set for each. */
  match (channel: string): ReadonlyArray<ReadonlySet<T>> {
    const found: Array<ReadonlySet<T>> = []
    if (this.#size > 0) collect(this.#root, channel.split('/'), 0, found)
    return found
  }
}

function childOf<T> (node: Node<T>, segment: string): Node<T> {
  if (segment === '*') return (node.one ??= newNode())
  const known = node.literals.get(segment)
  if (known) return known
  const child = newNode<T>()
  node.literals.set(segment, child)
  return child
}

function pathOf<T> (root: Node<T>, segments: readonly string[]): Array<Node<T>> {
  const path = [root]
  for (const segment of segments) {
    const { one, literals } = path.at(-1)!
    const next = segment === '*' ? one : literals.get(segment)
    if (!next) break
    path.push(next)
  }
  return path
}

function prune<T> (path: ReadonlyArray<Node<T>>, segments: readonly string[]) {
  for (let depth = segments.length; depth > 0 && isEmpty(path[depth]!); depth--) {
    const parent = path[depth - 1]!
    if (segments[depth - 1] === '*') parent.one = undefined
    else parent.literals.delete(segments[depth - 1]!)
  }
}

function isEmpty<T> ({ literals, one, end, rest }: Node<T>): boolean {
  return !end && !rest && !one && literals.size === 0
}

function collect<T> (node: Node<T>, segments: readonly string[], depth: number, found: Array<ReadonlySet<T>>) {
  if (depth === segments.length) {
    if (node.end) found.push(node.end)
    return
  }
  if (node.rest) found.push(node.rest)
  const literal = node.literals.get(segments[depth]!)
  if (literal) collect(literal, segments, depth + 1, found)
  if (node.one) collect(node.one, segments, depth + 1, found)
}
