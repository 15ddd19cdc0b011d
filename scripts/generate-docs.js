// Writes .env.example, the interface of the options and the generated pages of docs/. With `--check` it writes no file and
// fails if one of them is out of date or if a link between documents is broken.
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { asyncapiDocument } from './asyncapi-document.js'
import { brokenLinks } from './check-links.js'
import { optionsInterface } from './options-interface.js'
import { envExample, optionsPage } from './options-page.js'
import { codesPage, framesPage } from './protocol-pages.js'

const { check } = parseArgs({ options: { check: { type: 'boolean', default: false } } }).values
const root = fileURLToPath(new URL('..', import.meta.url))

function readIfPresent (url) {
  try {
    return readFileSync(url, 'utf8')
  } catch (error) {
    if (error.code === 'ENOENT') return ''
    throw error
  }
}

/** Writes the pages that differ. With `--check` it only lists them. */
function update (pages) {
  const stale = Object.entries(pages).filter(([name, text]) => readIfPresent(new URL(`../${name}`, import.meta.url)) !== text)
  if (!check) for (const [name, text] of stale) writeFileSync(new URL(`../${name}`, import.meta.url), text)
  return check ? stale.map(([name]) => `${name}: out of date; run npm run build && npm run docs`) : []
}

const document = await asyncapiDocument()
const findings = update({
  '.env.example': envExample(),
  'src/agent-registry-options.ts': optionsInterface(),
  'docs/options.md': optionsPage(),
  'docs/protocol/frames.md': framesPage(document),
  'docs/protocol/codes.md': codesPage(document)
})
if (check) findings.push(...brokenLinks(root))
if (findings.length > 0) {
  console.error(findings.join('\n'))
  process.exitCode = 1
}
