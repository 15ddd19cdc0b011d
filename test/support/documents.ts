import { isObject } from './snapshot.js'

/** Texts for people, which may change. */
const texts = new Set(['description', 'summary', 'title', 'x-advice'])
/** Members whose order has no meaning. */
const sets = new Set(['required', 'tags'])

const isText = (key: string, value: unknown) => texts.has(key) && typeof value === 'string'

/** A text for people in an example. */
const isExampleText = (key: string, value: unknown) => ['message', 'detail'].includes(key) && typeof value === 'string'

function strip (value: unknown, isExample: boolean): unknown {
  if (Array.isArray(value)) return value.map(child => strip(child, isExample))
  if (!isObject(value)) return value
  return Object.fromEntries(Object.entries(value).filter(([key, child]) => !isText(key, child)).map(([key, child]) => {
    if (isExample && isExampleText(key, child)) return [key, '<text>']
    if (sets.has(key) &&
      Array.isArray(child)) return [key, child.map(item => JSON.stringify(strip(item, isExample))).sort().map(item => JSON.parse(item))]
    return [key, strip(child, isExample || key === 'examples')]
  }))
}

/** An OpenAPI or AsyncAPI document without texts for people, version and address. */
export function stripDocument (document: { info: { version?: string }, servers?: unknown }): unknown {
  const { version: _, ...info } = document.info
  const { servers: __, ...rest } = document
  return strip({ ...rest, info }, false)
}

/** Names, types and label names of the series in a Prometheus text; values and help texts are left out. */
export function seriesOf (text: string): string {
  const types = new Map([...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name = '', type = '']) => [name, type]))
  const labels = new Map<string, Set<string>>([...types.keys()].map(name => [name, new Set()]))
  for (const [, series = '', members] of text.matchAll(/^([A-Za-z_:]\w*)(?:\{(.*)\})? \S+$/gm)) {
    const name = types.has(series) ? series : series.replace(/_(bucket|sum|count)$/, '')
    const names = labels.get(name)
    if (!names) throw new Error(`${series} has no type`)
    for (const [, label = ''] of (members ?? '').matchAll(/(\w+)="(?:[^"\\]|\\.)*"/g)) names.add(label)
  }
  // The labels of Node's own series depend on the previous work of the process.
  const isOfNode = (name: string) => /^(nodejs|process)_/.test(name)
  const lines = [...types].map(([name, type]) => `${name} ${type}${isOfNode(name)
? ''
: ` {${[...labels.get(name) ?? []].sort()
    .join(', ')}}`}`)
  return `${lines.sort().join('\n')}\n`
}
