import { hkdfSync } from 'node:crypto'
import fastifyJwt, { type JWT } from '@fastify/jwt'
import type { FastifyInstance } from 'fastify'
import type { Signer } from '../src/auth/tokens.js'
import type { ResolvedOptions } from '../src/options.js'

/** Names a secret without telling anything of it. */
export function keyId (secret: string): string {
  return Buffer.from(hkdfSync('sha256', secret, '', 'agent-registry:kid', 6)).toString('base64url')
}

function kidOf (token: string): unknown {
  try {
    return (JSON.parse(Buffer.from(token.split('.', 1)[0]!, 'base64url').toString()) as { kid?: unknown }).kid
  } catch {
    return undefined
  }
}

/**
 * @fastify/jwt once per secret, each in a namespace of its own: the first signs, all verify, found by `kid`. A token
 * without one, as other implementations make them with the same secret, is tried with the first.
 */
export async function registerJwt (scope: FastifyInstance, name: string, secrets: readonly string[], { algorithm }: ResolvedOptions['jwt']): Promise<Signer> {
  const verifiers = new Map<unknown, JWT>()
  // Of this scope alone: @fastify/jwt adds namespaces to the object that a host may have here already.
  const own: Record<string, JWT> = Object.create(null)
  scope.decorate('jwt', own as unknown as JWT)
  for (const [index, secret] of secrets.entries()) {
    const namespace = `${name}Jwt${index}`
    const kid = keyId(secret)
    await scope.register(fastifyJwt, {
      secret,
      namespace,
      sign: { algorithm, kid },
      // When a token ends is checked by who issues it, against its own clock and without leeway.
      verify: { algorithms: [algorithm], ignoreExpiration: true }
    })
    verifiers.set(kid, own[namespace]!)
  }
  const first = verifiers.get(keyId(secrets[0]!))!
  return {
    sign: claims => first.sign(claims),
    verify: token => (verifiers.size === 1 ? first : verifiers.get(kidOf(token)) ?? first).verify(token)
  }
}
