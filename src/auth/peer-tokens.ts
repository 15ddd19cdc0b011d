import { problem } from '../errors.js'
import { channelNamed } from '../protocol/channel-names.js'
import type { PeerTokenBody } from '../protocol/schemas/peers.js'
import type { Clock } from '../lib/clock.js'
import type { Principal } from './principal.js'
import { isUserName, type Rights } from './rights.js'
import type { IssuedToken, Tokens } from './tokens.js'

export interface PeerTokensOptions {
  tokens: Tokens
  now: Clock
  /** No token lives longer, so that what was revoked need not be known longer (ms). */
  maxLifeMs: number
  isRegistered: (agentId: string) => boolean
}

/** The caller that asks for a token. */
interface Minter { readonly peerId: string, readonly bearer: Principal, readonly rights: Rights }

const maxMetadataBytes = 8192
const maxPeerMetadataBytes = 4096
/** It stands in a URL, and Node takes 16 KiB of all headers and the URL together. */
const maxTokenLength = 12_000

/** Makes tokens for peers of `/v1`. */
export class PeerTokens {
  readonly #options: PeerTokensOptions

  constructor (options: PeerTokensOptions) {
    this.#options = options
  }

  /**
   * A token with rights that the minter has, which does not outlive the minter's own.
   * @throws invalid-channel, channel-reserved; channel-not-authorized, insufficient-permissions; name-taken; request-too-large
   */
  mint (minter: Minter, { expiresInSec, ...request }: PeerTokenBody): IssuedToken {
    this.assertName(minter, request.peerId)
    this.#assertRights(minter, request)
    assertSize('metadata', request.metadata, maxMetadataBytes)
    assertSize('peerMetadata', request.peerMetadata, maxPeerMetadataBytes)
    const { bearer } = minter
    const { type, agentId, incarnation, sessionId } = bearer
    const leftMs = bearer.expiresAt === null ? Infinity : bearer.expiresAt * 1000 - this.#options.now()
    const issued = this.#options.tokens.issuePeer({ ...request, lifeMs: Math.min(expiresInSec * 1000, this.#options.maxLifeMs, leftMs), minter: type === 'agent' ? { agentId, incarnation, sessionId } : { agentId: null, incarnation: null, sessionId } })
    if (issued.token.length > maxTokenLength) throw problem('request-too-large', 'The token would be too long for a URL')
    return issued
  }

  /** Nobody appears under the name of an agent or a user but these themselves. @throws name-taken */
  assertName (minter: Minter, peerId: string): void {
    if (minter.peerId === peerId) return
    if (peerId.startsWith('$') || isUserName(peerId) || this.#options.isRegistered(peerId)) throw problem('name-taken', `The name '${peerId}' is somebody else's`)
  }

  #assertRights ({ rights }: Minter, { channels, permissions }: Pick<PeerTokenBody, 'channels' | 'permissions'>) {
    for (const channel of channels) channelNamed(channel, 'v1')
    for (const action of permissions) {
      if (!rights.mayAnywhere(action)) throw problem('insufficient-permissions', `Your own token does not allow to ${action}`)
      const beyond = action === 'send' ? undefined : channels.find(channel => !rights.mayGrant(action, channel))
      if (beyond !== undefined) throw problem('channel-not-authorized', `Your own token does not allow to ${action} in ${beyond}`)
    }
  }
}

function assertSize (name: string, value: object | undefined, maxBytes: number) {
  if (value !== undefined && Buffer.byteLength(JSON.stringify(value)) > maxBytes) throw problem('request-too-large', `${name} has at most ${maxBytes} bytes of JSON`)
}
