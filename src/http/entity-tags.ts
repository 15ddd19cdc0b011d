import { createHash } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { problem } from '../errors.js'
import { revisionText } from '../registry/render.js'
import type { Registry } from '../registry/registry.js'
import type { AgentRecord } from '../storage/agent-store.js'

/**
 * Entity tags (RFC 9110 §8.8.3) are made of revisions, never of bodies. A list's is weak and covers what is registered
 * and in which state, not `last_seen` and metrics; a record's covers both.
 */
export function listTag (registry: Registry, request: FastifyRequest): string {
  const start = request.url.indexOf('?')
  const query = start < 0 ? '' : createHash('sha1').update(request.url.slice(start)).digest('base64url').slice(0, 8)
  return `W/"${registry.revision}.${query}"`
}

export function recordTag (registry: Registry, { revision, lastSeen }: AgentRecord): string {
  return `"${revisionText(registry.replica.epoch, revision)}.${lastSeen}"`
}

/** Sets the tag and answers 304 to a client that has this already. @returns whether it was answered */
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

/** Sends what is JSON already, such as a join of fragments. */
export function sendJson (reply: FastifyReply, text: string): FastifyReply {
  return reply.type('application/json; charset=utf-8').send(text)
}

/**
 * `n` of the revision that `If-Match` asks for, of several the one that is `current`; undefined when it asks for none. The rest of the tag does not matter:
 * a sign of life is no reason to refuse a change.
 * @throws precondition-failed for a tag of another life of this registry, or one that it never gave
 */
export function expectedRevision (registry: Registry, request: FastifyRequest, current: number): number | undefined {
  const expected = request.headers['if-match']?.trim()
  if (expected === undefined || expected === '*') return undefined
  const revisions = expected.split(',').map(tag => /^\s*"([\w-]+):(\d{1,15})(?:\.\d*)?"\s*$/.exec(tag) ?? [])
  const known = revisions.filter(([, epoch]) => epoch === registry.replica.epoch).map(([, , n]) => Number(n))
  if (known.length === 0) throw problem('precondition-failed', 'The revision in If-Match is not known here')
  return known.find(n => n === current) ?? known[0]
}
