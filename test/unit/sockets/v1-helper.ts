import { SignallingClient, type SignallingClientOptions } from '@metered-ca/realtime'
import type { Test } from 'tap'
import { WebSocket } from 'ws'
import type { AgentRegistryOptions } from '../../../src/index.js'
import { build, type Client, type Json, type Remote } from '../../support/harness.js'

export const secretKey = 'sk_id_test:sk_secret_0123456789'
export const publishableKey = 'pk_live_0123456789'

export const v1Options = {
  routes: { v1: true },
  secretKeys: [secretKey],
  peerKeys: [{ key: publishableKey, channels: ['room-*', 'lobby'], permissions: ['subscribe', 'publish', 'presence', 'send'] }]
} satisfies AgentRegistryOptions

/** A listening registry that serves `/v1`. */
export const buildV1 = (t: Test, options: AgentRegistryOptions = {}) => build(t, { ...v1Options, ...options })

/** The token of a peer, created by a back end. */
export async function peerToken (registry: Remote, peerId: string, more: object = {}): Promise<string> {
  const { body } = await registry.post('/v1/tokens', { token: secretKey, body: { peerId, channels: ['**'], ...more } })
  return body.token
}

/** A raw `/v1` socket after its welcome. */
export async function peerSocket (registry: Remote, token: string): Promise<Client & { welcome: Json }> {
  const client = registry.socket(`/v1?token=${token}`)
  const welcome = await client.next('welcome')
  return Object.assign(client, { welcome })
}

/** A peer with a raw socket. */
export async function peer (registry: Remote, peerId: string, more: object = {}) {
  return peerSocket(registry, await peerToken(registry, peerId, more))
}

type Source = { token: () => Promise<string> } | { key: string }

/** The unmodified client of the public SDK. */
export function sdkOptions (registry: Remote, source: Source): SignallingClientOptions {
  const credential = 'key' in source ? { apiKey: source.key } : { tokenProvider: source.token }
  return {
    ...credential,
    url: registry.base.replace('http', 'ws'),
    webSocketFactory: url => new WebSocket(url) as unknown as ReturnType<NonNullable<SignallingClientOptions['webSocketFactory']>>,
    reconnect: { initialDelayMs: 50, maxDelayMs: 200 }
  } as SignallingClientOptions
}

export function sdkClient (t: Test, registry: Remote, source: Source): SignallingClient {
  const client = new SignallingClient(sdkOptions(registry, source))
  t.teardown(() => client.close())
  return client
}
