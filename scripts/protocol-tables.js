// The generated parts of docs/protocol.md, made of the AsyncAPI document of a registry with the default options.
import { block, code, fill, table } from './markdown.js'

const nameOf = ({ $ref }) => $ref.split('/').at(-1)
const isFromClient = key => /^(\w+\.)?client\./.test(key)
const arrow = key => isFromClient(key) ? '→' : '←'
const literal = value => JSON.stringify(value).replaceAll('"', "'")

function membersText ({ properties, required = [] }) {
  const members = Object.entries(properties).map(([name, member]) => `${name}${required.includes(name) ? '' : '?'}: ${typeText(member)}`)
  return members.length === 0 ? 'object' : `{ ${members.join(', ')} }`
}

function itemsText (items) {
  return items.anyOf ? `Array<${typeText(items)}>` : `${typeText(items)}[]`
}

/** A schema as a TypeScript type. */
function typeText (schema) {
  if (schema.$ref) return nameOf(schema)
  if ('const' in schema) return literal(schema.const)
  if (schema.anyOf) return schema.anyOf.map(typeText).join(' | ')
  if (schema.type === 'array') return itemsText(schema.items)
  if (schema.patternProperties) return `Record<string, ${typeText(Object.values(schema.patternProperties)[0])}>`
  if (schema.properties) return membersText(schema)
  return schema.type === 'integer' ? 'number' : schema.type ?? 'unknown'
}

/** What is beside the `type`. */
function restText ({ properties, required, ...schema }) {
  if (!properties) return typeText(schema)
  const { type, ...rest } = properties
  return Object.keys(rest).length === 0 ? '' : membersText({ properties: rest, required })
}

/** Keys of messages that answer each message of a client, over all tiers. */
function answersOf ({ operations }) {
  const answers = new Map()
  for (const { messages, reply } of Object.values(operations)) {
    if (reply) answers.set(nameOf(messages[0]), reply.messages.map(nameOf))
  }
  return answers
}

function frameRow (document, answers, key) {
  const { name, summary, payload } = document.components.messages[key]
  const names = new Set((answers.get(key) ?? []).map(answer => document.components.messages[answer].name))
  names.delete('error')
  return [`${arrow(key)} ${code(name)}`, code(restText(payload)), Array.from(names, code).join(', '), summary ?? '']
}

/** What goes over the wire: bare texts are not JSON. */
function exampleText ({ examples: [{ payload }] }) {
  return typeof payload === 'string' ? payload : JSON.stringify(payload)
}

function examples (document, keys) {
  return block('json', keys.map(key => `${arrow(key)} ${exampleText(document.components.messages[key])}`))
}

function section (document, title, keys) {
  const answers = answersOf(document)
  return [`### ${title}`, table(['frame', 'members', 'answer', ''], keys.map(key => frameRow(document, answers, key))), examples(document, keys)].join('\n\n')
}

/** Frames that tiers share, then those of each tier. */
function frames (document) {
  const keys = Object.keys(document.components.messages)
  const isOf = tier => key => key.startsWith(`${tier}.`)
  const shared = keys.filter(key => !Object.keys(document.channels).some(tier => isOf(tier)(key)))
  const tiers = Object.entries(document.channels).map(([tier, { address }]) => section(document, `Frames of ${code(address)}`, keys.filter(isOf(tier))))
  return [section(document, 'Frames of several tiers', shared), ...tiers].join('\n\n')
}

function types ({ components: { schemas } }) {
  const declared = Object.entries(schemas).filter(([, { oneOf }]) => !oneOf).sort(([a], [b]) => a < b ? -1 : 1)
  return block('ts', declared.map(([name, schema]) => `type ${name} = ${typeText(schema)}${schema.description ? `  // ${schema.description}` : ''}`))
}

function codes ({ oneOf }, show) {
  return table(['code', 'meaning', 'what to do'], oneOf.map(({ const: value, description, 'x-advice': advice = '' }) => [show(value), description, advice]))
}

/** docs/protocol.md with its generated parts. */
export function protocol (text, document) {
  const { ErrorCode, CloseCode } = document.components.schemas
  const parts = { frames: frames(document), types: types(document), 'error-codes': codes(ErrorCode, code), 'close-codes': codes(CloseCode, String) }
  return Object.entries(parts).reduce((filled, [marker, content]) => fill(filled, marker, content), text)
}
