// Generates docs/options.md and .env.example from the schemas of the options and of the stand-alone server.
import { describeSetting, ServerSettingsSchema, settingsOf, standAloneDefaults } from '../dist/src/server/env.js'
import { OptionsSchema } from '../dist/src/options.js'
import { code, table } from './markdown.js'

const standAloneDefault = path => path.reduce((value, name) => value?.[name], standAloneDefaults)

/** A default as the value of a variable, in the unit of the variable; '' without a default. */
function asText ({ path, schema, factor }) {
  const value = standAloneDefault(path) ?? schema.default
  if (typeof value === 'number') return String(value / factor)
  return value === undefined ? '' : String(value)
}

function sectionsOf (schema) {
  const sections = new Map()
  for (const setting of settingsOf(schema)) {
    const title = setting.path.length > 1 ? schema.properties[setting.path[0]].description : 'Registry'
    sections.set(title, [...(sections.get(title) ?? []), setting])
  }
  return sections
}

function allSections () {
  return new Map([['Server', settingsOf(ServerSettingsSchema)], ...sectionsOf(OptionsSchema)])
}

/** Variables that are read when the first name of a setting is not set → those first names. */
function fallbacks () {
  const found = new Map()
  for (const { names: [first, ...others] } of [...allSections().values()].flat()) {
    for (const name of others) found.set(name, [...(found.get(name) ?? []), first])
  }
  return found
}

function wrap (text, width = 110) {
  const lines = ['']
  for (const word of text.split(' ')) {
    if (lines.at(-1).length + word.length > width) lines.push('')
    lines[lines.length - 1] += ` ${word}`
  }
  return lines.map(line => `#${line}`).join('\n')
}

export function envExample () {
  const parts = [
    '# Settings of the stand-alone server. Copy this file to .env and uncomment the lines to change. The values shown are',
    '# the defaults. Variables of the process override those of the file. A blank variable counts as unset.',
    '# With NODE_ENV=production the server does not start without JWT_SECRET and ADMIN_PASSWORD.'
  ]
  for (const [title, settings] of allSections()) {
    parts.push('', `## ${title.replaceAll('`', '')}`)
    for (const setting of settings) {
      const description = wrap(describeSetting(setting).replaceAll('`', ''))
      parts.push('', description, `#${setting.names[0]}=${asText(setting)}`)
    }
  }
  parts.push('', '## Read when the variables named in each comment are not set')
  for (const [name, firsts] of fallbacks()) parts.push('', wrap(firsts.join(', ')), `#${name}=`)
  return `${parts.join('\n')}\n`
}

function variablesText ({ env = [], envFactor = 1 }) {
  const unit = { 1: '', 1000: ' (s)', 60_000: ' (min)' }[envFactor]
  return env.length === 0 ? '' : env.map(code).join(', ') + unit
}

function defaultText (schema, path) {
  const show = value => value === undefined ? '' : code(JSON.stringify(value).replaceAll('"', "'"))
  const standAlone = standAloneDefault(path)
  return standAlone === undefined ? show(schema.default) : `${show(schema.default)}; server: ${show(standAlone)}`
}

/** The description, followed by the allowed values unless it already lists them. */
function descriptionText ({ description, anyOf = [] }) {
  const values = anyOf.map(branch => branch.const).filter(value => value !== undefined)
  return values.every(value => description.includes(value)) ? description : `${description}. One of ${values.map(code).join(', ')}`
}

function rowsOf (schema, path = []) {
  return Object.entries(schema.properties).flatMap(([name, child]) => {
    const here = [...path, name]
    if (child.properties && Object.keys(child.properties).length > 0) return rowsOf(child, here)
    return [[code(here.join('.')), variablesText(child), defaultText(child, here), descriptionText(child)]]
  })
}

const serverRows = () => rowsOf(ServerSettingsSchema).map(([, ...cells]) => ['stand-alone only', ...cells])

const introduction = `Each option of the plugin, and the environment variable with which the stand-alone server sets it.

* The plugin takes options in \`app.register(agentRegistry, options)\`. \`a.b\` is the member \`b\` of the object \`a\`. A wrong or unknown
  option fails the registration with \`AGENT_REGISTRY_INVALID_OPTIONS\` and names each fault.
* The stand-alone server reads variables of the process, then those of \`.env\` in the working directory. If several variables are
  listed, the first that is set applies. A blank variable counts as unset. A wrong value stops the start with the name of the variable, the
  fault and a valid value. [.env.example](../.env.example) lists all variables.
* Options count in the unit in parentheses at the end of their description. A variable marked (s) counts in seconds, (min) in minutes.
* Lists in variables are separated by commas (\`AGENT_KEYS=key-one-long,key-two-long\`) or written in JSON, which also allows objects.
* \`server:\` marks a default of the stand-alone server that differs from the plugin's. It uses \`redis\` as \`storage\` if \`REDIS_URL\`,
  \`REDIS_HOST\`, \`REDIS_SENTINELS\` or \`REDIS_CLUSTER\` is set. With \`NODE_ENV=production\` it requires
  \`JWT_SECRET\` and \`ADMIN_PASSWORD\`.`

/** docs/options.md */
export function optionsPage () {
  const rows = [...rowsOf(OptionsSchema), ...serverRows()]
  return `${[
    '# Options', '<!-- Generated from the schemas by `npm run docs`. Do not edit. -->', introduction,
    table(['Option', 'Variable', 'Default', 'Description'], rows)
  ].join('\n\n')}\n`
}
