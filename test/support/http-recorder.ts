import type { Harness, Json } from './harness.js'
import { sharedShape, shorten } from './shapes.js'
import { isObject, sortKeys } from './snapshot.js'

/** Headers whose values are compared. */
const comparedHeaders = ['allow', 'cache-control', 'content-type', 'location', 'vary', 'www-authenticate']

export interface HttpCall {
  token?: string | undefined
  /** Sent as JSON. */
  body?: unknown
  /** Sent unchanged, as JSON unless a header differs. */
  raw?: string
  headers?: Record<string, string>
}

export interface HttpAnswer { status: number, headers: Headers, body: Json, text: string }

/** Reads a response, or the first event of an event stream. */
async function textOf (response: Response, isStream: boolean): Promise<string> {
  if (!isStream || response.body === null) return await response.text()
  let text = ''
  for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
    text += chunk
    if (/^data: .*\n\n/m.test(text)) break
  }
  return text
}

const isJson = (type: string) => /json/.test(type)
const isStream = (type: string) => type.startsWith('text/event-stream')

function requestOf ({ token, body, raw, headers }: HttpCall) {
  const payload = raw ?? (body === undefined ? undefined : JSON.stringify(body))
  const all = new Map(Object.entries(headers ?? {}))
  if (payload !== undefined && !all.has('content-type')) all.set('content-type', 'application/json')
  if (token !== undefined) all.set('authorization', `Bearer ${token}`)
  return { payload, headers: Object.fromEntries(all) }
}

function answerOf (status: number, headers: Headers, text: string): HttpAnswer {
  const type = headers.get('content-type') ?? ''
  return { status, headers, body: isJson(type) && text !== '' ? JSON.parse(text) : undefined, text }
}

/** Sends a request over a socket. */
export async function callHttp ({ base }: Harness, method: string, path: string, call: HttpCall = {}): Promise<HttpAnswer> {
  const { payload, headers } = requestOf(call)
  const response = await fetch(base + path, { method, headers, redirect: 'manual', ...(payload !== undefined && { body: payload }) })
  return answerOf(response.status, response.headers, await textOf(response, isStream(response.headers.get('content-type') ?? '')))
}

type Method = 'DELETE' | 'GET' | 'PATCH' | 'POST' | 'PUT'

/** Injects a request without a socket, which is much faster. */
export async function inject ({ app }: Harness, method: Method, url: string, call: HttpCall = {}): Promise<HttpAnswer> {
  const { payload, headers } = requestOf(call)
  const response = await app.inject({ method, url, headers, ...(payload !== undefined && { payload }) })
  const pairs = Object.entries(response.headers).map(([name, value]): [string, string] => [name, String(value)])
  return answerOf(response.statusCode, new Headers(pairs), response.body)
}

const problemName = ({ type }: { type: string }) => type.replace(/^.*\/problems\//, '')

function isProblem ({ headers }: HttpAnswer): boolean {
  return headers.get('content-type')?.startsWith('application/problem+json') ?? false
}

/** Status and problem type in one line; on `/v1` the error code. */
export function outcomeOf (answer: HttpAnswer): string {
  const { status, headers, body } = answer
  const name = isProblem(answer) ? problemName(body) : status >= 400 && body?.error
  const allow = headers.get('allow')
  return [status, name || headers.get('content-type')?.split(';', 1)[0], allow && `(allow ${allow})`].filter(Boolean).join(' ')
}

/** The lines of an event stream, with the shape of its data. */
function eventShape (text: string): unknown[] {
  return text.trimEnd().split('\n').map(line => {
    const [field = '', value = ''] = line.split(/: (.*)/)
    if (field === 'data') return { data: sharedShape([JSON.parse(value)]) }
    return field === 'event' ? line : field
  })
}

function bodyShape (answer: HttpAnswer): unknown {
  const { headers, body, text } = answer
  if (isStream(headers.get('content-type') ?? '')) return eventShape(text)
  if (body === undefined) return text === '' ? '' : '<text>'
  if (body.openapi !== undefined || body.asyncapi !== undefined) return '<document>'
  if (!isProblem(answer)) return sharedShape([body])
  const { type, status, errors, ...members } = body
  const fields = errors && { errors: errors.map(({ path }: Json) => path) }
  return { problem: problemName({ type }), status, ...fields, members: Object.keys(members).sort().join(' ') }
}

const isRecord = (shape: Record<string, unknown>) => 'agent_id' in shape && 'public_key' in shape

/** Replaces the shapes of agent records with names; `records` maps each name to its shape. */
export function nameRecords (shape: unknown, records: Map<string, Json>): unknown {
  if (Array.isArray(shape)) return shape.map(child => nameRecords(child, records))
  if (!isObject(shape)) return shape
  if (!isRecord(shape)) return Object.fromEntries(Object.entries(shape).map(([key, child]) => [key, nameRecords(child, records)]))
  const text = JSON.stringify(sortKeys(shape))
  for (const [name, known] of records) if (JSON.stringify(known) === text) return name
  const name = `<agent record ${records.size + 1}>`
  records.set(name, JSON.parse(text))
  return name
}

/** Records the responses of a registry to scripted requests, in order. */
export class HttpRecorder {
  readonly entries: unknown[] = []
  readonly requested = new Set<string>()
  readonly #registry: Harness

  constructor (registry: Harness) {
    this.#registry = registry
  }

  /** @param route path with the names of its parameters, such as `/agents/{id}` */
  async call (request: string, call: HttpCall = {}, route?: string): Promise<HttpAnswer> {
    const [method = '', path = ''] = request.split(' ')
    const answer = await callHttp(this.#registry, method, path, call)
    const values = comparedHeaders.map(name => [name, answer.headers.get(name)]).filter(([, value]) => value !== null)
    this.requested.add(`${method} ${route ?? path.split('?', 1)[0]}`)
    this.entries.push({
      request: shorten(request.replace(/eyJ[\w.-]+/, '<jwt>')),
      ...(isObject(call.body) && { sent: Object.keys(call.body).join(' ') }),
      status: answer.status,
      headers: [...answer.headers.keys()].sort().join(' '),
      values: Object.fromEntries(values),
      body: bodyShape(answer)
    })
    return answer
  }
}
