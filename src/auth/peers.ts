import { createHash, randomUUID, timingSafeEqual } from 'node:crypto'
import { OptionsError, problem } from '../errors.js'
import type { Clock } from '../lib/clock.js'
import type { ResolvedOptions } from '../options.js'
import { parseChannel } from '../protocol/channel-names.js'
import type { Principal } from '../protocol/principal.js'
import type { Action, Grant } from '../protocol/schemas/messaging.js'
import type { PeerTokenBody } from '../protocol/schemas/peers.js'
import type { Attempts } from './attempts.js'
import { originCheck, type OriginCheck } from './origins.js'
import { isUserName, type Rights } from './rights.js'
import type { IssuedToken, Tokens } from './tokens.js'

interface PeerTokensOptions {
  tokens: Tokens
  now: Clock
  /** Most milliseconds that a token lives. Revocations are kept for this time. */
  maxLifeMs: number
  isRegistered: (agentId: string) => boolean
}

/** The caller that requests a token. */
interface Minter { readonly peerId: string, readonly authenticatedPrincipal: Principal, readonly rights: Rights }

const maxMetadataBytes = 8192
const maxPeerMetadataBytes = 4096
/** The token is part of a URL, and Node accepts 16 KiB for the URL and all headers. */
const maxTokenLength = 12_000

/** Mints tokens for peers of `/v1`. */
export class PeerTokens {
  readonly #options: PeerTokensOptions

  constructor (options: PeerTokensOptions) {
    this.#options = options
  }

  /**
   * Mints a token with rights that the minter has itself. It expires no later than the minter's own token.
   * @throws invalid-channel, channel-reserved; channel-not-authorized, insufficient-permissions; name-taken; request-too-large
   */
  mint (minter: Minter, { expiresInSec, ...request }: PeerTokenBody): IssuedToken {
    this.assertName(minter, request.peerId)
    this.#assertRights(minter, request)
    assertSize('metadata', request.metadata, maxMetadataBytes)
    assertSize('peerMetadata', request.peerMetadata, maxPeerMetadataBytes)
    const { type, agentId, incarnation, sessionId, expiresAt } = minter.authenticatedPrincipal
    const isAgent = type === 'agent'
    const leftMs = expiresAt === null ? Infinity : expiresAt * 1000 - this.#options.now()
    const issued = this.#options.tokens.issuePeer({
      ...request,
      lifeMs: Math.min(expiresInSec * 1000, this.#options.maxLifeMs, leftMs),
      minter: { agentId: isAgent ? agentId : null, incarnation: isAgent ? incarnation : null, sessionId }
    })
    if (issued.token.length > maxTokenLength) throw problem('request-too-large', 'The token would be too long for a URL')
    return issued
  }

  /** Agents and users may not be impersonated. @throws name-taken */
  assertName (caller: Pick<Minter, 'peerId'>, peerId: string): void {
    if (caller.peerId === peerId) return
    const isTaken = peerId.startsWith('$') || isUserName(peerId) || this.#options.isRegistered(peerId)
    if (isTaken) throw problem('name-taken', `The name '${peerId}' is taken`)
  }

  #assertRights ({ rights }: Minter, { channels, permissions }: Pick<PeerTokenBody, 'channels' | 'permissions'>) {
    for (const channel of channels) parseChannel(channel, 'v1')
    for (const action of permissions) {
      if (!rights.mayAnywhere(action)) throw problem('insufficient-permissions', `This token may not ${action}`)
      const denied = action === 'send' ? undefined : channels.find(channel => !rights.mayGrant(action, channel))
      if (denied !== undefined) throw problem('channel-not-authorized', `This token may not ${action} in ${denied}`)
    }
  }
}

function assertSize (name: string, value: object | undefined, maxBytes: number) {
  if (value === undefined || Buffer.byteLength(JSON.stringify(value)) <= maxBytes) return
  throw problem('request-too-large', `${name} must not exceed ${maxBytes} bytes of JSON`)
}

type PeerKeyOption = ResolvedOptions['peerKeys'][number]

interface PeerKey {
  readonly digest: string
  readonly grants: readonly Grant[]
  /** Null if every origin is allowed. */
  readonly isAllowed: OriginCheck | null
  readonly maxConnections: number
}

const allActions: Action[] = ['subscribe', 'publish', 'presence', 'history', 'send', 'broadcast', 'work', 'serve', 'approve']
const digestOf = (text: string) => createHash('sha256').update(text).digest()

/** The members of a principal that a key does not set. */
const keyPrincipal = { agentId: null, incarnation: null, sessionId: null, expiresAt: null, scopes: [] }

/** The publishable keys, which open `/v1` for pages without a token. Each connection with a key is a new peer. */
export class PeerKeys {
  readonly #keys = new Map<string, PeerKey>()

  /** @throws AGENT_REGISTRY_INVALID_OPTIONS for a key that is configured twice and for an invalid origin */
  constructor (keys: ResolvedOptions['peerKeys']) {
    for (const [index, entry] of keys.entries()) this.#add(entry, index)
  }

  /** The maximum number of connections with a key. @param digest of a configured key */
  limitOf (digest: string): number {
    return this.#keys.get(digest)?.maxConnections ?? Infinity
  }

  /**
   * Creates a principal with the rights of a key.
   * @param origin of the page; a client that sends none is accepted only if the key allows every origin
   * @returns undefined for a key that is not configured
   * @throws insufficient-permissions for a page of another origin
   */
  principalOf (key: string, origin: string | undefined): Principal | undefined {
    const known = this.#keys.get(digestOf(key).toString('base64url'))
    if (!known) return undefined
    const isAllowed = known.isAllowed === null || (origin !== undefined && known.isAllowed(origin))
    if (!isAllowed) throw problem('insufficient-permissions', 'This key does not allow pages of this origin')
    const id = randomUUID()
    return { ...keyPrincipal, type: 'peer', role: 'peer', subject: id, tokenId: id, keyDigest: known.digest, grants: known.grants }
  }

  #add ({ key, channels, permissions, origins = [], maxConnections = Infinity }: PeerKeyOption, index: number) {
    const digest = digestOf(key).toString('base64url')
    if (this.#keys.has(digest)) throw new OptionsError(`peerKeys.${index}: this key is configured twice`)
    const isAllowed = originCheck(origins, `peerKeys.${index}.origins`)
    this.#keys.set(digest, { digest, grants: [{ channels, allow: permissions }], isAllowed, maxConnections })
  }
}

function idOf (key: string): string {
  const [id = ''] = key.split(':', 1)
  return id
}

/** The secret keys, `id:secret`, with which back ends use the HTTP API of `/v1` with all rights. */
export class SecretKeys {
  readonly #keys = new Map<string, Buffer>()
  readonly #attempts: Attempts

  /** @throws AGENT_REGISTRY_INVALID_OPTIONS for an id that is configured twice */
  constructor (keys: readonly string[], attempts: Attempts) {
    this.#attempts = attempts
    for (const [index, key] of keys.entries()) this.#add(key, index)
  }

  /**
   * Creates the principal of a secret key.
   * @returns undefined if the credential does not start with a configured id: it may be a token
   * @throws authentication-failed for a wrong secret; rate-limit-exceeded
   */
  async principalOf (credential: string, address: string): Promise<Principal | undefined> {
    const id = idOf(credential)
    const known = this.#keys.get(id)
    if (!known) return undefined
    await this.#attempts.attemptLocally({ kind: 'key', address }, () => {
      if (!timingSafeEqual(known, digestOf(credential))) throw problem('authentication-failed', 'Authentication failed: Invalid secret key')
    })
    const grants = [{ channels: ['**'], allow: [...allActions] }]
    return { ...keyPrincipal, type: 'user', role: 'user', subject: id, tokenId: `secret-key ${id}`, keyDigest: null, grants }
  }

  #add (key: string, index: number) {
    const id = idOf(key)
    if (this.#keys.has(id)) throw new OptionsError(`secretKeys.${index}: this id is configured twice`)
    this.#keys.set(id, digestOf(key))
  }
}
