// Tables and generated parts of Markdown files.

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

/** Puts `content` between the comments that carry the name of `marker`. */
export function fill (text, marker, content) {
  const pattern = new RegExp(`(<!-- ${marker} -->)[^]*?(<!-- /${marker} -->)`)
  if (!pattern.test(text)) throw new Error(`There is no <!-- ${marker} --> … <!-- /${marker} -->`)
  return text.replace(pattern, (_, before, after) => `${before}\n${content}\n${after}`)
}
