// Generates docs/protocol/frames.md and docs/protocol/codes.md from the AsyncAPI document of a registry with default options.
import { problemTypes } from '../dist/src/index.js'
import { block, code, table } from './markdown.js'

const note = '<!-- Generated from the schemas by `npm run docs`. Do not edit. -->'

const nameOf = ({ $ref }) => $ref.split('/').at(-1)
const isFromClient = key => /^(\w+\.)?client\./.test(key)
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

/** The members of a frame besides `type`. */
function restText ({ properties, required, ...schema }) {
  if (!properties) return typeText(schema)
  const { type, ...rest } = properties
  return Object.keys(rest).length === 0 ? '' : membersText({ properties: rest, required })
}

/** The keys of the messages that reply to each message of a client, over all tiers. */
function repliesOf ({ operations }) {
  const replies = new Map()
  for (const { messages, reply } of Object.values(operations)) {
    if (reply) replies.set(nameOf(messages[0]), reply.messages.map(nameOf))
  }
  return replies
}

function frameRow (document, replies, key) {
  const { name, summary, payload } = document.components.messages[key]
  const names = new Set((replies.get(key) ?? []).map(reply => document.components.messages[reply].name))
  names.delete('error')
  const members = code(restText(payload))
  return isFromClient(key) ? [code(name), members, Array.from(names, code).join(', '), summary ?? ''] : [code(name), members, summary ?? '']
}

/** A frame as text. A frame that is a string is not encoded as JSON. */
function exampleText ({ examples: [{ payload }] }) {
  return typeof payload === 'string' ? payload : JSON.stringify(payload)
}

function examples (document, keys) {
  const messages = keys.map(key => document.components.messages[key])
  const texts = messages.filter(({ examples: [{ payload }] }) => typeof payload !== 'string').map(exampleText)
  return texts.length === 0 ? [] : [block('json', texts)]
}

function direction (document, title, titles, keys) {
  if (keys.length === 0) return []
  const rows = keys.map(key => frameRow(document, repliesOf(document), key))
  return [`### ${title}`, table(titles, rows), ...examples(document, keys)]
}

function section (document, title, keys) {
  return [
    `## ${title}`,
    ...direction(document, `${title}: client to server`, ['frame', 'members', 'reply', 'description'], keys.filter(isFromClient)),
    ...direction(document, `${title}: server to client`, ['frame', 'members', 'description'], keys.filter(key => !isFromClient(key)))
  ]
}

/** The frames of several tiers, then those of each tier. */
function sections (document) {
  const keys = Object.keys(document.components.messages)
  const isOf = tier => key => key.startsWith(`${tier}.`)
  const shared = keys.filter(key => !Object.keys(document.channels).some(tier => isOf(tier)(key)))
  const tiers = Object.entries(document.channels).map(function tierSection ([tier, { address }]) {
    return section(document, `Frames of ${code(address)}`, keys.filter(isOf(tier)))
  })
  return [...section(document, 'Frames of several tiers', shared), ...tiers.flat()]
}

function declarationOf ([name, schema]) {
  const comment = schema.description ? `  // ${schema.description}` : ''
  return [name, `type ${name} = ${typeText(schema)}${comment}`]
}

/** A TypeScript declaration for each schema that frames share: name → declaration. */
export function typeDeclarations ({ components: { schemas } }) {
  const declared = Object.entries(schemas).filter(([, { oneOf }]) => !oneOf).sort(([a], [b]) => a < b ? -1 : 1)
  return new Map(declared.map(declarationOf))
}

function codes ({ oneOf }, show) {
  const rows = oneOf.map(({ const: value, description, 'x-advice': advice = '' }) => [show(value), description, advice])
  return table(['code', 'meaning', 'what to do'], rows)
}

const page = parts => `${parts.join('\n\n')}\n`

const framesIntroduction = `Every frame, from the schemas that the registry checks frames with.
[websocket.md](websocket.md) describes when each one is sent.
A registry serves the same information for programs at \`/asyncapi.json\` (option \`routes.docs\`).

The server may reply to any frame of a client with \`error\`. \`text-ping\` and \`text-pong\` are the bare texts \`ping\` and \`pong\`,
\`authenticate\` is the frame that carries the token, and \`list\` is the bare array of agents. These have no \`type\`.`

/** docs/protocol/frames.md */
export function framesPage (document) {
  const types = block('ts', [...typeDeclarations(document).values()])
  return page(['# Frames', note, framesIntroduction, ...sections(document), '## Types of members', types])
}

const codesIntroduction = `Error codes of frames, close codes of sockets, and problem types of HTTP. [errors.md](errors.md) describes
the \`error\` frame, problem documents and refused upgrades.`

function problems () {
  const rows = Object.entries(problemTypes).map(([type, [title, status]]) => [code(type), String(status), title])
  return table(['type', 'status', 'title'], rows)
}

/** docs/protocol/codes.md */
export function codesPage ({ components: { schemas: { ErrorCode, CloseCode } } }) {
  return page([
    '# Codes', note, codesIntroduction,
    '## Error codes', codes(ErrorCode, code), 'The socket stays open after each of these.',
    '## Close codes', codes(CloseCode, String),
    '## Problem types', 'The `type` of a problem document is `<prefix>/problems/<type>`.', problems()
  ])
}
