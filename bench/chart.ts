// Bar charts as self-contained SVG: no fonts, no scripts, light and dark.

export interface Bar { label: string, value: number, isOurs?: boolean }

/** `file` is the name without the extension. The goal is a line across the bars. */
export interface Chart { file: string, title: string, unit: string, bars: readonly Bar[], goal?: { value: number, label: string } }

const width = 760
const left = 250
const right = 120
const top = 52
const step = 30
const barHeight = 18
const foot = 34

const style = `
  .card { fill: #ffffff; stroke: #d0d7de }
  .ours { fill: #0969da } .peer { fill: #afb8c1 } .goal { stroke: #bc4c00 }
  text { font: 13px system-ui, sans-serif; fill: #1f2328 } .title { font-weight: 600; font-size: 15px } .goal-text { fill: #bc4c00 }
  .value { paint-order: stroke; stroke: #ffffff; stroke-width: 5 }
  @media (prefers-color-scheme: dark) {
    .card { fill: #0d1117; stroke: #30363d }
    .ours { fill: #4493f8 } .peer { fill: #656c76 } .goal { stroke: #f0883e }
    text { fill: #e6edf3 } .goal-text { fill: #f0883e } .value { stroke: #0d1117 }
  }`

const escape = (text: string) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')

/** Three significant digits, and no decimals for large numbers. */
function valueText (value: number): string {
  const digits = value < 100 ? { minimumSignificantDigits: 3, maximumSignificantDigits: 3 } : { maximumFractionDigits: 0 }
  return value.toLocaleString('en', digits)
}

function barOf ({ value, isOurs = false }: Bar, index: number, scale: number): string {
  const length = Math.max(1, value * scale).toFixed(1)
  return `<rect class="${isOurs ? 'ours' : 'peer'}" x="${left}" y="${top + index * step}" width="${length}" height="${barHeight}" rx="2"/>`
}

function textsOf ({ label, value }: Bar, index: number, unit: string, scale: number): string {
  const y = top + index * step + 14
  return [
    `<text x="${left - 10}" y="${y}" text-anchor="end">${escape(label)}</text>`,
    `<text class="value" x="${(left + value * scale + 6).toFixed(1)}" y="${y}">${valueText(value)} ${escape(unit)}</text>`
  ].join('\n  ')
}

function goalOf ({ value, label }: { value: number, label: string }, bottom: number, scale: number): string {
  const x = (left + value * scale).toFixed(1)
  const anchor = Number(x) > width / 2 ? 'end' : 'start'
  return [
    `<line class="goal" x1="${x}" y1="${top - 6}" x2="${x}" y2="${bottom + 4}" stroke-width="2" stroke-dasharray="5 3"/>`,
    `<text class="goal-text" x="${x}" y="${bottom + 19}" text-anchor="${anchor}">${escape(label)} (${valueText(value)})</text>`
  ].join('\n  ')
}

export function svgOf ({ title, unit, bars, goal }: Chart): string {
  const bottom = top + bars.length * step - (step - barHeight)
  const height = bottom + (goal ? foot : 16)
  const scale = (width - left - right) / Math.max(goal?.value ?? 0, ...bars.map(({ value }) => value))
  const parts = [
    `<style>${style}\n  </style>`,
    `<rect class="card" x="0.5" y="0.5" width="${width - 1}" height="${height - 1}" rx="6"/>`,
    `<text class="title" x="16" y="30">${escape(title)}</text>`,
    ...bars.map((bar, index) => barOf(bar, index, scale)),
    ...goal ? [goalOf(goal, bottom, scale)] : [],
    // Drawn over the line of the goal, to be readable where it crosses them.
    ...bars.map((bar, index) => textsOf(bar, index, unit, scale))
  ]
  const label = escape(title).replaceAll('"', '&quot;')
  const size = `viewBox="0 0 ${width} ${height}" width="${width}" height="${height}"`
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} role="img" aria-label="${label}">\n  ${parts.join('\n  ')}\n</svg>\n`
}
