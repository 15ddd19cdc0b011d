// Generates src/agent-registry-options.ts, the documented interface of the options, from the schema.
import { OptionsSchema } from '../dist/src/options.js'

/** Modules of the types that the schema names with `tsType`. */
const modules = {
  ioredis: ['Cluster', 'Redis'],
  './hooks.js': ['AuthenticateHook', 'AuthorizePublishHook', 'AuthorizeSubscribeHook', 'EmbedHook', 'OnRegisterHook', 'PublicViewHook'],
  './storage/storage.js': ['CustomStorage']
}

const literal = value => JSON.stringify(value).replaceAll('"', "'")

function comment ({ description = '', default: value }, indent) {
  const isShown = value !== undefined && (typeof value !== 'object' || (Array.isArray(value) && value.length > 0))
  const text = isShown ? `${description}. Default: \`${literal(value)}\`` : description
  const lines = wrap(text.replace(/^\. /, ''), 126 - indent.length)
  if (lines.length === 1) return [`${indent}/** ${lines[0]} */`]
  return [`${indent}/**`, ...lines.map(line => `${indent} * ${line}`), `${indent} */`]
}

function wrap (text, width) {
  const lines = ['']
  for (const word of text.split(' ')) {
    if (lines.at(-1) !== '' && lines.at(-1).length + word.length + 1 > width) lines.push('')
    lines.push(`${lines.pop()} ${word}`.trim())
  }
  return lines
}

/** The TypeScript type of the input of the schema: members with a default are optional. */
function typeText (schema, indent) {
  if (schema.tsType) return schema.tsType
  if ('const' in schema) return literal(schema.const)
  if (schema.anyOf) return unionText(schema.anyOf, indent)
  if (schema.type === 'array') return arrayText(schema.items, indent)
  if (schema.properties) return ['{', ...members(schema, `${indent}  `), `${indent}}`].join('\n')
  return schema.type === 'integer' ? 'number' : schema.type.toLowerCase()
}

/** The union of the types of `branches`; one per line if it is long. */
function unionText (branches, indent) {
  const types = [...new Set(branches.map(branch => typeText(branch, indent)))]
  const text = types.join(' | ')
  return text.length <= 100 || text.includes('\n') ? text : types.map(type => `\n${indent}  | ${type}`).join('')
}

function arrayText (items, indent) {
  const text = typeText(items, indent)
  return /^[\w.]+$/.test(text) ? `${text}[]` : `Array<${text}>`
}

function members ({ properties, required = [] }, indent) {
  return Object.entries(properties).flatMap(([name, schema]) => {
    const isOptional = !required.includes(name) || 'default' in schema
    return [
      ...(schema.description || 'default' in schema ? comment(schema, indent) : []),
      `${indent}${name}${isOptional ? '?' : ''}: ${typeText(schema, indent)}`.replace(': \n', ':\n')
    ]
  })
}

function imports (text) {
  const types = text.replace(/\/\*\*[^]*?\*\//g, '')
  return Object.entries(modules).flatMap(([module, names]) => {
    const used = names.filter(name => new RegExp(`\\b${name}\\b`).test(types))
    return used.length > 0 ? [`import type { ${used.join(', ')} } from '${module}'`] : []
  })
}

export function optionsInterface () {
  const heading = ['/** The options of the plugin. */', 'export interface AgentRegistryOptions {']
  const body = [...heading, ...members(OptionsSchema, '  '), '}'].join('\n')
  const header = '// Generated from OptionsSchema (options.ts) by `npm run docs`. Do not edit.'
  return [header, ...imports(body), '', body, ''].join('\n')
}
