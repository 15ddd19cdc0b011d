import { refTo, type Json, type JsonObject } from './components.js'
import type { DescribedTier } from './channels.js'

interface Credential {
  readonly name: string
  readonly scheme: { readonly [member: string]: string }
  readonly isTakenBy: (tier: DescribedTier) => boolean
}

const always = () => true

/** How an upgrade says who comes, in the order in which it is looked at. */
const allCredentials: readonly Credential[] = [
  {
    name: 'bearer',
    scheme: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT', description: 'The header `Authorization` of the upgrade' },
    isTakenBy: always
  },
  {
    name: 'subprotocol',
    scheme: { type: 'httpApiKey', in: 'header', name: 'Sec-WebSocket-Protocol', description: '`bearer.<token>`, offered beside a subprotocol that can be chosen' },
    isTakenBy: always
  },
  {
    name: 'ticket',
    scheme: { type: 'httpApiKey', in: 'query', name: 'ticket', description: 'From `POST /ws-tickets`, good for one socket' },
    isTakenBy: ({ name }) => name !== 'v1'
  },
  {
    name: 'token',
    scheme: { type: 'httpApiKey', in: 'query', name: 'token', description: 'An access token; URLs end up in logs, so prefer another way' },
    isTakenBy: tier => tier.takesQueryToken
  },
  {
    name: 'key',
    scheme: { type: 'httpApiKey', in: 'query', name: 'key', description: 'A publishable key, for pages without a token' },
    isTakenBy: ({ name }) => name === 'v1'
  }
]

/** What the upgrade of a tier may bring; nothing where anybody may come. */
export function credentials (tier: DescribedTier): readonly Credential[] {
  return tier.handshake === null ? [] : allCredentials.filter(({ isTakenBy }) => isTakenBy(tier))
}

export function security (tier: DescribedTier): Json[] {
  return credentials(tier).map(({ name }) => refTo('components', 'securitySchemes', name))
}

/** What the credentials of these tiers are, and the trait by which operations of a tier ask for one of them. */
export function securityComponents (tiers: readonly DescribedTier[]): { securitySchemes: JsonObject, operationTraits: JsonObject } {
  const guarded = tiers.filter(tier => security(tier).length > 0)
  const schemes = guarded.flatMap(tier => credentials(tier).map(({ name, scheme }) => [name, scheme] as const))
  return {
    securitySchemes: Object.fromEntries(schemes),
    operationTraits: Object.fromEntries(guarded.map(tier => [tier.name, { security: security(tier) }]))
  }
}
