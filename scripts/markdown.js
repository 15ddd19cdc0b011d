// Reads and writes Markdown: tables, fenced blocks, headings and links.

export function cell (text) {
  return text.replaceAll('|', '\\|').replaceAll('\n', ' ')
}

export function row (cells) {
  return `| ${cells.map(cell).join(' | ')} |`
}

export function table (titles, rows) {
  return [row(titles), row(titles.map(() => '---')), ...rows.map(row)].join('\n')
}

export function code (text) {
  return text === '' ? '' : `\`${text}\``
}

export function block (language, lines) {
  return [`\`\`\`${language}`, ...lines, '```'].join('\n')
}

const fence = /^```(\w*)[ ]*(.*)\n([^]*?)^```$/gm

/**
 * The fenced blocks of a page.
 * @returns {Array<{ language: string, marks: string[], code: string, line: number }>} `marks` are the words after the language
 */
export function blocksOf (text) {
  return Array.from(text.matchAll(fence), ({ 1: language, 2: info, 3: code, index }) => {
    const line = text.slice(0, index).split('\n').length
    return { language, marks: info.split(' ').filter(mark => mark !== ''), code, line }
  })
}

const withoutBlocks = text => text.replaceAll(fence, '')

function slugOf (heading) {
  const plain = heading.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').toLowerCase()
  return plain.replace(/[^\p{L}\p{N}_\- ]/gu, '').replaceAll(' ', '-')
}

/** The anchors that GitHub makes for the headings of a page. */
export function anchorsOf (text) {
  const anchors = new Set()
  for (const [, heading] of withoutBlocks(text).matchAll(/^#{1,6} +(.+?) *$/gm)) {
    const slug = slugOf(heading)
    let anchor = slug
    for (let n = 1; anchors.has(anchor); n++) anchor = `${slug}-${n}`
    anchors.add(anchor)
  }
  return anchors
}

/** The targets of links and images of a page, except those inside code. */
export function linksOf (text) {
  const prose = withoutBlocks(text).replaceAll(/`[^`\n]*`/g, '')
  const inline = Array.from(prose.matchAll(/\]\(<?([^)>\s]+)>?(?: "[^"]*")?\)/g), match => match[1])
  const html = Array.from(prose.matchAll(/\b(?:src|srcset|href)="([^"]+)"/g), match => match[1])
  return [...inline, ...html]
}
