// Checks the relative links of all Markdown files: each file and each heading exists, and another page links to each page of docs/.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { anchorsOf, linksOf } from './markdown.js'

function markdownFiles (root) {
  const below = folder => readdirSync(join(root, folder), { recursive: true }).map(name => join(folder, name))
  const files = [...readdirSync(root), ...below('docs'), ...below('.github')]
  return files.filter(name => name.endsWith('.md'))
}

const isExternal = target => /^[a-z][a-z0-9+.-]*:/i.test(target)

/**
 * @param {string} root folder of the repository
 * @returns {string[]} one line for each broken link and each page of docs/ without a link to it
 */
export function brokenLinks (root) {
  const pages = new Map(markdownFiles(root).map(name => [name, readFileSync(join(root, name), 'utf8')]))
  const linked = new Set()
  const findings = []
  for (const [name, text] of pages) {
    for (const target of linksOf(text)) {
      if (isExternal(target)) continue
      const [path, anchor] = target.split('#')
      const file = path === '' ? name : relative(root, join(root, dirname(name), decodeURI(path)))
      if (file !== name) linked.add(file)
      if (!existsSync(join(root, file))) findings.push(`${name}: ${target}: file not found`)
      else if (anchor && pages.has(file) && !anchorsOf(pages.get(file)).has(anchor)) findings.push(`${name}: ${target}: heading not found`)
    }
  }
  for (const name of pages.keys()) {
    if (name.startsWith('docs') && !linked.has(name)) findings.push(`${name}: no page links to it`)
  }
  return findings
}
