import { createHash } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import { headerOf } from '../../src/http/guard.js'
import type { Core } from '../../src/core.js'
import { problem } from '../../src/errors.js'
import { callerOf } from './caller.js'

const maxLength = 255
/** A string as structured fields have it (RFC 8941 §3.3.3), or one without quotes, as many clients send it. */
const form = /^(?:"((?:[ !#-[\]-~]|\\["\\])+)"|([!#-~]+))$/

/** @throws request-error for what is no key */
export function idempotencyKeyOf (request: FastifyRequest): string | undefined {
  const text = headerOf(request, 'idempotency-key')
  if (text === undefined) return undefined
  const [, quoted, bare] = (text.length <= maxLength ? form.exec(text) : null) ?? []
  const key = quoted ?? bare
  if (key === undefined) throw problem('request-error', `An Idempotency-Key is a string of 1 to ${maxLength} printable characters`)
  return key
}

/** Does what a request asks for once, where it has an `Idempotency-Key`. @param withinMs how long that may take */
export async function once<T> ({ idempotency }: Core, request: FastifyRequest, run: () => Promise<T>, withinMs = 10_000): Promise<T> {
  const key = idempotencyKeyOf(request)
  if (key === undefined) return await run()
  const { method, url, body } = request
  return await idempotency.once({ caller: callerOf(request).peerId, key, request: JSON.stringify([method, url, body]), withinMs }, run)
}

/** What is stored may be stored although it seemed to fail: under the same key it is the same message. */
export function msgIdOf (request: FastifyRequest, given: string | undefined): string | undefined {
  const key = idempotencyKeyOf(request)
  return given ?? (key && createHash('sha256').update(key).digest('base64url'))
}
