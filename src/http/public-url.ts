import type { FastifyInstance } from 'fastify'
import type { ResolvedOptions } from '../options.js'

/** Where clients reach the registry, its prefix included. Never made of the Host header, which anybody can choose. */
export function publicUrlOf (scope: FastifyInstance, { publicUrl, prefix }: ResolvedOptions): string {
  return publicUrl?.replace(/\/+$/, '') ?? `${originOf(scope)}${prefix}`
}

/** Where the server listens; before that, what a test that injects requests sees. */
function originOf (scope: FastifyInstance): string {
  const [address] = scope.addresses()
  if (typeof address !== 'object') return 'http://localhost'
  const host = address.family === 'IPv6' ? `[${address.address}]` : address.address
  return `http://${host}:${address.port}`
}
