import { hkdfSync } from 'node:crypto'
import fastifyJwt, { type JWT } from '@fastify/jwt'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import type { Signer } from '../src/auth/tokens.js'
import type { ResolvedOptions } from '../src/options.js'

declare module 'fastify' {
  interface FastifyInstance {
    agentRegistrySigner: Signer
  }
}

interface JwtOptions {
  /** The first secret signs, all verify. */
  secrets: readonly string[]
  algorithm: ResolvedOptions['jwt']['algorithm']
}

const namespace = 'agentRegistry'

/** Identifies a secret without revealing it. */
function keyId (secret: string): string {
  return Buffer.from(hkdfSync('sha256', secret, '', 'agent-registry:kid', 6)).toString('base64url')
}

function kidOf (token: string): unknown {
  const [header = ''] = token.split('.', 1)
  try {
    return JSON.parse(Buffer.from(header, 'base64url').toString()).kid
  } catch {
    return undefined
  }
}

/**
 * Registers @fastify/jwt and decorates the scope with `agentRegistrySigner`. The secret that verifies a token is selected
 * by its `kid`. A token without one, as other implementations sign them with the same secret, is verified with the first.
 */
async function jwt (scope: FastifyInstance, { secrets: [first = '', ...others], algorithm }: JwtOptions) {
  const otherSecrets = new Map<unknown, string>(others.map(secret => [keyId(secret), secret]))
  // Without a decorator in this scope, @fastify/jwt would add its namespace to the decorator of the host.
  const namespaces: Record<string, JWT | undefined> = {}
  scope.decorate('jwt', Object.setPrototypeOf(namespaces, null))
  await scope.register(fastifyJwt, {
    secret: first,
    namespace,
    sign: { algorithm, kid: keyId(first) },
    // The issuer checks the expiry by its own clock and without leeway.
    verify: { algorithms: [algorithm], ignoreExpiration: true }
  })
  const { [namespace]: registered } = namespaces
  if (registered === undefined) throw new Error('@fastify/jwt has not registered its namespace')
  const { sign, verify } = registered
  scope.decorate('agentRegistrySigner', {
    sign: claims => sign(claims),
    verify (token) {
      const key = otherSecrets.size === 0 ? undefined : otherSecrets.get(kidOf(token))
      return key === undefined ? verify(token) : verify(token, { key })
    }
  })
}

export default fp(jwt, { name: 'agent-registry-jwt', fastify: '5.x' })
