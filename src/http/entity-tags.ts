import { createHash } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { problem } from '../errors.js'
import { revisionText } from '../registry/render.js'
import type { Registry } from '../registry/registry.js'
import type { AgentRecord } from '../storage/agent-store.js'

/**
 * The entity tag (RFC 9110 §8.8.3) of a list. Entity tags contain revisions, so that no body is hashed. The tag of a list
 * is weak: it covers registrations and states, but not `last_seen` and metrics. The tag of a record covers both.
 */
export function listTag (registry: Registry, request: FastifyRequest): string {
  const start = request.url.indexOf('?')
  const query = start < 0 ? '' : createHash('sha1').update(request.url.slice(start)).digest('base64url').slice(0, 8)
  return `W/"${registry.revision}.${query}"`
}

export function recordTag (registry: Registry, { revision, lastSeen }: AgentRecord): string {
  return `"${revisionText(registry.replica.epoch, revision)}.${lastSeen}"`
}

/** Sets the tag, and responds with 304 to a client that has the current representation. @returns whether it responded */
export function isUnchanged (request: FastifyRequest, reply: FastifyReply, tag: string): boolean {
  reply.header('etag', tag).header('cache-control', 'no-cache')
  const known = request.headers['if-none-match']
  if (known === undefined || !isListed(tag, known)) return false
  reply.code(304).send()
  return true
}

/** Weak comparison (RFC 9110 §8.8.3.2). */
function isListed (tag: string, known: string): boolean {
  const opaque = tag.replace(/^W\//, '')
  return known.trim() === '*' || known.split(',').some(entry => entry.trim().replace(/^W\//, '') === opaque)
}

/** Sends JSON text, such as joined fragments. */
export function sendJson (reply: FastifyReply, text: string): FastifyReply {
  return reply.type('application/json; charset=utf-8').send(text)
}

/**
 * The number of the revision that `If-Match` requires; undefined without a requirement. If the header lists several tags,
 * `current` is preferred. The rest of a tag is ignored, so that a heartbeat does not fail a change.
 * @throws precondition-failed for tags of another epoch, and malformed tags
 */
export function expectedRevision (registry: Registry, request: FastifyRequest, current: number): number | undefined {
  const expected = request.headers['if-match']?.trim()
  if (expected === undefined || expected === '*') return undefined
  const revisions = expected.split(',').map(tag => /^\s*"([\w-]+):(\d{1,15})(?:\.\d*)?"\s*$/.exec(tag) ?? [])
  const known = revisions.filter(([, epoch]) => epoch === registry.replica.epoch).map(([, , n]) => Number(n))
  if (known.length === 0) throw problem('precondition-failed', 'The revision in If-Match is unknown')
  return known.find(n => n === current) ?? known[0]
}
