import { createHmac, timingSafeEqual } from 'node:crypto'
import { isProblem } from '../../../src/errors.js'
import { Attempts } from '../../../src/auth/attempts.js'
import { Authority, type AuthorityOptions } from '../../../src/auth/authority.js'
import { KeyRing } from '../../../src/auth/keys.js'
import { PasswordHasher } from '../../../src/auth/passwords.js'
import { Revocations } from '../../../src/auth/revocations.js'
import { Sessions } from '../../../src/auth/sessions.js'
import { KeyValueReplica } from '../../../src/storage/kv-store.js'
import { Tokens, type Signer } from '../../../src/auth/tokens.js'
import type { Clock } from '../../../src/lib/clock.js'
import { MemoryKeyValueStore } from '../../../src/storage/memory/kv-store.js'
import type { KeyValueStore } from '../../../src/storage/kv-store.js'
import type { Principal } from '../../../src/protocol/principal.js'

export const start = Date.UTC(2030, 0, 1) + 250

/** A manual clock. */
export function manualClock (at = start) {
  let time = at
  const now = () => time
  return Object.assign(now, { advance (ms: number) { time += ms } })
}

/** The key-value entries of one process; two with the same `store` are two processes. */
export function shared (clock: Clock, store: KeyValueStore = new MemoryKeyValueStore({ clock })): KeyValueReplica {
  const state = new KeyValueReplica(store)
  state.open().catch(error => { throw error })
  return state
}

function mac (text: string, secret: string) {
  return createHmac('sha256', secret).update(text).digest('base64url')
}

/** JWTs (HS256) as @fastify/jwt signs them: only signature and algorithm are verified. */
export function hmacSigner (secret = 'a secret of at least 32 characters'): Signer {
  const head = Buffer.from('{"alg":"HS256","typ":"JWT"}').toString('base64url')
  return {
    sign (claims) {
      const text = `${head}.${Buffer.from(JSON.stringify(claims)).toString('base64url')}`
      return `${text}.${mac(text, secret)}`
    },
    verify (token) {
      const [header, payload = '', signature] = token.split('.')
      const [expected, actual] = [Buffer.from(mac(`${header}.${payload}`, secret)), Buffer.from(signature ?? '')]
      if (expected.length !== actual.length || !timingSafeEqual(expected, actual)) throw new Error('bad signature')
      return JSON.parse(Buffer.from(payload, 'base64url').toString()) as unknown
    }
  }
}

export const cheapCost = { N: 2, r: 1, p: 1 }
export const cheapHasher = () => new PasswordHasher({ cost: cheapCost })

export function principal (values: Partial<Principal> = {}): Principal {
  return {
    type: 'agent',
    role: 'agent',
    subject: 'agent-one',
    agentId: 'agent-one',
    incarnation: 5,
    tokenId: 'token-1',
    sessionId: null,
    expiresAt: start / 1000 + 3600,
    scopes: [],
    keyDigest: null,
    issuedAt: start,
    ...values
  }
}

/** The parts of an error that clients see. */
export function seen (error: unknown) {
  if (!isProblem(error)) throw error
  return { type: error.type, status: error.statusCode, detail: error.message }
}

/** The problem with which `run` rejects. */
export async function refusal (run: () => unknown) {
  try {
    await run()
  } catch (error) {
    return seen(error)
  }
  throw new Error('Expected a refusal')
}

export const agentKey = 'key-of-the-fleet'
export const admin = { username: 'root', password: 'correct horse' }
export const login = { ...admin, address: '192.0.2.1', fingerprint: 'browser-1' }

export function buildAuthority (changes: Partial<AuthorityOptions> = {}) {
  const now = manualClock()
  const signer = hmacSigner()
  const incarnations = new Map<string, number>()
  const state = shared(now)
  const parts = {
    tokens: new Tokens({ signer, namespace: 'default', expiresInMs: 3_600_000, now }),
    keys: new KeyRing([agentKey], Buffer.from('secret')),
    sessions: new Sessions({ kvReplica: state, timeoutMs: 1_800_000, maxSessions: 2, now }),
    revocations: new Revocations({ kvReplica: state, maxTokenLifeMs: 3_600_000, now }),
    attempts: new Attempts({ kv: state.store, burst: 5, windowMs: 50_000, now }),
    passwords: cheapHasher()
  }
  const currentIncarnation = (agentId: string) => incarnations.get(agentId)
  const authority = new Authority({ ...parts, admin, now, hookTimeoutMs: 5, currentIncarnation, ...changes })
  return { ...parts, authority, now, signer, incarnations }
}
