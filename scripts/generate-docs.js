// Writes .env.example, the tables of README.md and those of docs/protocol.md from schemas; `--check` fails where they differ.
import { readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import fastify from 'fastify'
import { describeSetting, settingsOf, standAloneDefaults } from '../dist/src/env.js'
import agentRegistry from '../dist/src/index.js'
import { OptionsSchema } from '../dist/src/options.js'
import { ServerSettingsSchema } from '../dist/src/server-settings.js'
import { code, fill, table } from './markdown.js'
import { protocol } from './protocol-tables.js'

const { check } = parseArgs({ options: { check: { type: 'boolean', default: false } } }).values
const stale = []

function update (name, change) {
  const url = new URL(`../${name}`, import.meta.url)
  const before = readIfThere(url)
  const after = change(before)
  if (before === after) return
  if (check) stale.push(name)
  else writeFileSync(url, after)
}

function readIfThere (url) {
  try {
    return readFileSync(url, 'utf8')
  } catch (error) {
    if (error.code === 'ENOENT') return ''
    throw error
  }
}

function defaultOf ({ path, schema }) {
  const standAlone = path.reduce((value, name) => value?.[name], standAloneDefaults)
  return standAlone ?? schema.default
}

/** A default as it is written into a variable, in the variable's unit; '' where there is none. */
function asText (setting) {
  const value = defaultOf(setting)
  if (typeof value === 'number') return String(value / setting.factor)
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

/** Variables that are looked at when the first name of a setting is not set → those first names. */
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

function envExample () {
  const parts = [
    '# Settings of the stand-alone server. Copy this file to .env and take the # away where a value is to change;',
    '# what is shown is the default. Variables of the process win over those of the file, blank ones count as unset.',
    '# With NODE_ENV=production the server does not start without JWT_SECRET and ADMIN_PASSWORD.'
  ]
  for (const [title, settings] of allSections()) {
    parts.push('', `## ${title.replaceAll('`', '')}`)
    for (const setting of settings) parts.push('', wrap(describeSetting(setting).replaceAll('`', '')), `#${setting.names[0]}=${asText(setting)}`)
  }
  parts.push('', '## Looked at where the variables named here are not set')
  for (const [name, firsts] of fallbacks()) parts.push('', wrap(firsts.join(', ')), `#${name}=`)
  return `${parts.join('\n')}\n`
}

function environmentTable () {
  const rows = [...allSections().values()].flat().map(setting =>
    [setting.names.map(code).join(', '), code(asText(setting)), describeSetting(setting)])
  return table(['Variable', 'Default', 'Meaning'], rows)
}

function typeOf (schema) {
  if (schema.anyOf) return [...new Set(schema.anyOf.map(branch => branch.const ? `'${branch.const}'` : typeOf(branch)))].join(' | ')
  if (schema.type === 'array') return schema.items.anyOf ? `Array<${typeOf(schema.items)}>` : `${typeOf(schema.items)}[]`
  return schema.type === 'integer' ? 'number' : schema.type.toLowerCase()
}

function optionRows (schema, path = []) {
  return Object.entries(schema.properties).flatMap(([name, child]) => {
    if (child.properties) return optionRows(child, [...path, name])
    const value = child.default === undefined ? '' : JSON.stringify(child.default).replaceAll('"', "'")
    return [[code([...path, name].join('.')), code(typeOf(child)), code(value), child.description]]
  })
}

function optionsTable () {
  return table(['Option', 'Type', 'Default', 'Description'], optionRows(OptionsSchema))
}

function readme (text) {
  return fill(fill(text, 'options', optionsTable()), 'environment', environmentTable())
}

/** The document of all tiers, as a registry with the default options serves it. */
async function asyncapi () {
  const app = fastify()
  await app.register(agentRegistry, { routes: { docs: true, v1: true } })
  const answer = await app.inject('/asyncapi.json')
  await app.close()
  return answer.json()
}

const document = await asyncapi()
update('.env.example', envExample)
update('README.md', readme)
update('docs/protocol.md', text => protocol(text, document))
if (stale.length > 0) {
  console.error(`out of date: ${stale.join(', ')}; run npm run build && npm run docs`)
  process.exitCode = 1
}
