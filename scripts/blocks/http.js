// Blocks in the syntax of HTTP: a request, followed by the expected response. `{{name}}` is replaced by the value of a variable;
// in the body of a response it sets the variable. `…` in a response matches any value.
import { isDeepStrictEqual } from 'node:util'

function parseHeader (line) {
  const colon = line.indexOf(':')
  return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()]
}

function parseMessage (text) {
  const [head, ...body] = text.split('\n\n')
  const [start, ...lines] = head.trim().split('\n')
  const headers = Object.fromEntries(lines.map(parseHeader))
  return { start, headers, body: body.join('\n\n').trim() }
}

function fillIn (text, variables) {
  return text.replaceAll(/\{\{(\w+)\}\}/g, (_, name) => {
    if (!(name in variables)) throw new Error(`no value for {{${name}}}`)
    return variables[name]
  })
}

function escapeRegExp (text) {
  return RegExp.escape?.(text) ?? text.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')
}

/** Compares the expected with the actual value. The actual value may have additional members. */
function compare (expected, actual, variables, path = '') {
  if (expected === '…') return
  const variable = typeof expected === 'string' ? /^\{\{(\w+)\}\}$/.exec(expected)?.[1] : undefined
  if (variable !== undefined && !(variable in variables) && actual !== undefined) {
    variables[variable] = actual
    return
  }
  if (typeof expected === 'string' && typeof actual === 'string') {
    const pattern = fillIn(expected, variables).split('…').map(escapeRegExp).join('[^]*')
    if (new RegExp(`^${pattern}$`).test(actual)) return
  }
  if (Array.isArray(expected) && Array.isArray(actual) && expected.length === actual.length) {
    expected.forEach((item, index) => compare(item, actual[index], variables, `${path}/${index}`))
    return
  }
  if (typeof expected === 'object' && expected !== null && typeof actual === 'object' && actual !== null && !Array.isArray(expected)) {
    for (const [name, value] of Object.entries(expected)) compare(value, actual[name], variables, `${path}/${name}`)
    return
  }
  if (isDeepStrictEqual(expected, actual)) return
  throw new Error(`${path || '/'}: expected ${JSON.stringify(expected)}, got ${JSON.stringify(actual)}`)
}

async function checkResponse (text, response, body, variables) {
  const { start, headers, body: expected } = parseMessage(text)
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(start)[1])
  if (response.status !== status) throw new Error(`expected ${status}, got ${response.status}: ${body}`)
  for (const [name, value] of Object.entries(headers)) compare(value, response.headers.get(name), variables, name)
  if (expected !== '') compare(JSON.parse(expected), JSON.parse(body), variables)
}

/**
 * Sends the request of a block to `url` and compares the response. Without an expected response the status must be 2xx.
 * @returns {Promise<string>} the response, for the log
 */
export async function runHttp (code, url, variables) {
  const [requestText, responseText] = code.split(/\n(?=HTTP\/1\.1 \d{3})/)
  const { start, headers, body } = parseMessage(fillIn(requestText, variables))
  const [method, path] = start.split(' ')
  const response = await fetch(new URL(path, url), { method, headers, body: body === '' ? undefined : body, redirect: 'manual' })
  const text = await response.text()
  if (responseText !== undefined) await checkResponse(responseText, response, text, variables)
  else if (!response.ok) throw new Error(`${response.status}: ${text}`)
  return `${response.status} ${text}`
}
