import { createHash, randomUUID, timingSafeEqual } from 'node:crypto'
import { problem, OptionsError } from '../errors.js'
import { channelNamed } from '../protocol/channel-names.js'
import type { PeerTokenBody } from '../protocol/schemas/peers.js'
import type { Clock } from '../lib/clock.js'
import type { Principal } from '../protocol/principal.js'
import { isUserName, type Rights } from './rights.js'
import type { IssuedToken, Tokens } from './tokens.js'
import type { ResolvedOptions } from '../options.js'
import { originCheck, type OriginCheck } from './origins.js'
import type { Action, Grant } from '../protocol/schemas/messaging.js'
import type { Attempts } from './attempts.js'

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

type PeerKeyOption = ResolvedOptions['peerKeys'][number]
interface PeerKey { readonly digest: string, readonly grants: readonly Grant[], readonly isAllowed: OriginCheck | null, readonly maxConnections: number }

const everything: readonly Action[] = ['subscribe', 'publish', 'presence', 'history', 'send', 'broadcast', 'work', 'serve', 'approve']
const digestOf = (text: string) => createHash('sha256').update(text).digest()

const nobodysKey = { agentId: null, incarnation: null, sessionId: null, expiresAt: null, scopes: [] }

/** The publishable keys, which open `/v1` for pages that have no token: whoever has one is somebody new each time. */
export class PeerKeys {
  readonly #keys = new Map<string, PeerKey>()

  /** @throws AGENT_REGISTRY_INVALID_OPTIONS for a key that is there twice, and what is no origin */
  constructor (keys: ResolvedOptions['peerKeys']) {
    for (const [index, entry] of keys.entries()) this.#add(entry, index)
  }

  /** How many sockets may come with a key. @param digest of one that is configured */
  limitOf (digest: string): number {
    return this.#keys.get(digest)?.maxConnections ?? Infinity
  }

  /**
   * Somebody new with the rights of a key.
   * @param origin of the page; what sends none is no browser, and only let in where origins do not matter
   * @returns undefined for a key that is not configured
   * @throws insufficient-permissions for a page of another origin
   */
  bearer (key: string, origin: string | undefined): Principal | undefined {
    const known = this.#keys.get(digestOf(key).toString('base64url'))
    if (!known) return undefined
    if (known.isAllowed && (origin === undefined || !known.isAllowed(origin))) throw problem('insufficient-permissions', 'Pages of this origin may not use this key')
    const id = randomUUID()
    return { ...nobodysKey, type: 'peer', role: 'peer', subject: id, tokenId: id, keyDigest: known.digest, grants: known.grants }
  }

  #add ({ key, channels, permissions, origins = [], maxConnections = Infinity }: PeerKeyOption, index: number) {
    const digest = digestOf(key).toString('base64url')
    if (this.#keys.has(digest)) throw new OptionsError(`peerKeys.${index}: this key is configured twice`)
    this.#keys.set(digest, { digest, grants: [{ channels, allow: permissions }], isAllowed: originCheck(origins, `peerKeys.${index}.origins`), maxConnections })
  }
}

/** The secret keys, `id:secret`, with which back ends ask for anything over HTTP. */
export class SecretKeys {
  readonly #keys = new Map<string, Buffer>()
  readonly #attempts: Attempts

  /** @throws AGENT_REGISTRY_INVALID_OPTIONS for an id that is there twice */
  constructor (keys: readonly string[], attempts: Attempts) {
    this.#attempts = attempts
    for (const [index, key] of keys.entries()) this.#add(key, index)
  }

  /**
   * Who has this key.
   * @returns undefined for what is no key of these: perhaps it is a token
   * @throws authentication-failed for a wrong secret; rate-limit-exceeded
   */
  async bearer (credential: string, address: string): Promise<Principal | undefined> {
    const id = credential.split(':', 1)[0]!
    const known = this.#keys.get(id)
    if (!known) return undefined
    await this.#attempts.attemptNow({ kind: 'key', address }, () => {
      if (!timingSafeEqual(known, digestOf(credential))) throw problem('authentication-failed', 'Authentication failed: Invalid secret key')
    })
    return { ...nobodysKey, type: 'user', role: 'user', subject: id, tokenId: `secret-key ${id}`, keyDigest: null, grants: [{ channels: ['**'], allow: [...everything] }] }
  }

  #add (key: string, index: number) {
    const id = key.split(':', 1)[0]!
    if (this.#keys.has(id)) throw new OptionsError(`secretKeys.${index}: this id is configured twice`)
    this.#keys.set(id, digestOf(key))
  }
}
