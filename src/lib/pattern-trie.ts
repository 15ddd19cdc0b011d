/** The last segment of a pattern that matches one or more segments. */
const restSegment = '**'
const wildcard = '*'

/** Whether a pattern matches a channel. `*` matches one segment; `**`, as the last segment, matches one or more. */
export function matchesPattern (pattern: string, channel: string): boolean {
  return fits(pattern.split('/'), channel.split('/'), (wanted, segment) => wanted === wildcard || wanted === segment)
}

/** Whether `granted` matches every channel that `pattern` matches. */
export function isWithin (granted: string, pattern: string): boolean {
  return fits(granted.split('/'), pattern.split('/'), function covers (wanted, segment) {
    return segment !== restSegment && (wanted === wildcard || wanted === segment)
  })
}

type SegmentTest = (wanted: string, segment: string | undefined) => boolean

function fits (wanted: readonly string[], segments: readonly string[], test: SegmentTest): boolean {
  const isOpen = wanted.at(-1) === restSegment
  const fixed = isOpen ? wanted.length - 1 : wanted.length
  if (isOpen ? segments.length <= fixed : segments.length !== fixed) return false
  return wanted.slice(0, fixed).every((segment, index) => test(segment, segments[index]))
}

interface Node<T> {
  readonly literals: Map<string, Node<T>>
  /** The child for `*`. */
  any: Node<T> | undefined
  /** The value of the pattern that ends at this node, and of the one that ends here with `**`. */
  end: T | undefined
  rest: T | undefined
}

/** A map from channel patterns to values that finds the values of all patterns that match a channel. */
export class PatternTrie<T extends NonNullable<unknown>> {
  #root = newNode<T>()
  #size = 0

  /** The number of patterns. */
  get size () { return this.#size }

  get (pattern: string): T | undefined {
    const { segments, slot } = pathOf(pattern)
    let node: Node<T> | undefined = this.#root
    for (const segment of segments) node = node && childOf(node, segment)
    return node?.[slot]
  }

  set (pattern: string, value: T): void {
    const { segments, slot } = pathOf(pattern)
    let node = this.#root
    for (const segment of segments) node = childOf(node, segment) ?? addChild(node, segment)
    if (node[slot] === undefined) this.#size++
    node[slot] = value
  }

  /** @returns whether the pattern was present */
  delete (pattern: string): boolean {
    const { segments, slot } = pathOf(pattern)
    const isDeleted = deleteFrom(this.#root, segments, slot, 0)
    if (isDeleted) this.#size--
    return isDeleted
  }

  clear (): void {
    this.#root = newNode()
    this.#size = 0
  }

  /** @returns the value of one of the patterns that match */
  find (channel: string): T | undefined {
    return this.#size > 0 ? findFrom(this.#root, channel.split('/'), 0) : undefined
  }

  /** @returns the values of all patterns that match */
  match (channel: string): T[] {
    const found: T[] = []
    if (this.#size > 0) collect(this.#root, channel.split('/'), 0, found)
    return found
  }
}

type Slot = 'end' | 'rest'

/** The nodes that lead to a pattern, and the member of the last one that holds its value. */
function pathOf (pattern: string): { segments: readonly string[], slot: Slot } {
  const segments = pattern.split('/')
  if (segments.at(-1) !== restSegment) return { segments, slot: 'end' }
  segments.pop()
  return { segments, slot: 'rest' }
}

function newNode<T> (): Node<T> {
  return { literals: new Map(), any: undefined, end: undefined, rest: undefined }
}

function childOf<T> ({ any, literals }: Node<T>, segment: string): Node<T> | undefined {
  return segment === wildcard ? any : literals.get(segment)
}

function addChild<T> (node: Node<T>, segment: string): Node<T> {
  const child = newNode<T>()
  if (segment === wildcard) node.any = child
  else node.literals.set(segment, child)
  return child
}

/** Deletes a value and the nodes that no other pattern needs. */
function deleteFrom<T> (node: Node<T>, segments: readonly string[], slot: Slot, depth: number): boolean {
  const segment = segments[depth]
  if (segment === undefined) {
    const isPresent = node[slot] !== undefined
    node[slot] = undefined
    return isPresent
  }
  const child = childOf(node, segment)
  if (!child || !deleteFrom(child, segments, slot, depth + 1)) return false
  if (isEmpty(child)) {
    if (segment === wildcard) node.any = undefined
    else node.literals.delete(segment)
  }
  return true
}

function isEmpty<T> ({ literals, any, end, rest }: Node<T>): boolean {
  return end === undefined && rest === undefined && any === undefined && literals.size === 0
}

function findFrom<T> (node: Node<T>, segments: readonly string[], depth: number): T | undefined {
  const segment = segments[depth]
  if (segment === undefined) return node.end
  if (node.rest !== undefined) return node.rest
  const literal = node.literals.get(segment)
  const found = literal && findFrom(literal, segments, depth + 1)
  return found ?? (node.any && findFrom(node.any, segments, depth + 1))
}

function collect<T> (node: Node<T>, segments: readonly string[], depth: number, found: T[]) {
  const segment = segments[depth]
  if (segment === undefined) {
    if (node.end !== undefined) found.push(node.end)
    return
  }
  if (node.rest !== undefined) found.push(node.rest)
  const literal = node.literals.get(segment)
  if (literal) collect(literal, segments, depth + 1, found)
  if (node.any) collect(node.any, segments, depth + 1, found)
}
