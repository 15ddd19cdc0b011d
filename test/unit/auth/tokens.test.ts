import t from 'tap'
import { type TokenProblem, Tokens, VerifiedTokens } from '../../../src/auth/tokens.js'
import type { Claims } from '../../../src/protocol/schemas/claims.js'
import type { Principal } from '../../../src/protocol/principal.js'
import { ExpiringMap } from '../../../src/lib/expiring-map.js'
import { Revocations, type Revoked } from '../../../src/auth/revocations.js'
import { hmacSigner, manualClock, principal, refusal, shared } from './helper.js'

const hour = 3_600_000

function build (namespace = 'default') {
  const now = manualClock()
  const signer = hmacSigner()
  return { now, signer, tokens: new Tokens({ signer, namespace, expiresInMs: hour, now }) }
}

function reasonOf (run: () => unknown) {
  try {
    run()
  } catch (error) {
    return (error as TokenProblem).reason
  }
}

t.test('tokens: a temporary token carries its key and lives exactly 900 s', async t => {
  const { tokens, now } = build()
  const { token, expiresIn, tokenId } = tokens.issueTemp({ agentId: 'agent-one', agentType: 'Testing', keyDigest: 'd1' })
  t.equal(expiresIn, 900)
  const claims = tokens.claims(token)
  t.match(claims, { iss: 'agent-registry:default', aud: 'arcp:validate', sub: 'temp_agent-one', typ: 'temp', role: 'agent', jti: tokenId })
  t.match(claims, { temp_registration: true, token_type: 'temp', agent_type: 'testing', key: 'd1', scopes: [] })
  t.equal(claims.exp - claims.iat, 900)
  t.match(tokens.verify(token), {
    type: 'temp', agentId: 'agent-one', keyDigest: 'd1', agentType: 'testing', incarnation: null, sessionId: null, issuedAt: now()
  })
  now.advance(899_000)
  t.ok(tokens.verify(token))
  now.advance(1_000)
  t.equal(reasonOf(() => tokens.verify(token)), 'expired')
})

t.test('tokens: an agent token carries its incarnation', async t => {
  const { tokens } = build()
  const first = tokens.issueAgent({ agentId: 'agent-one', incarnation: 7 })
  const second = tokens.issueAgent({ agentId: 'agent-one', incarnation: 7 })
  t.not(first.tokenId, second.tokenId)
  t.equal(first.expiresIn, 3600)
  t.match(tokens.claims(first.token), { aud: 'arcp:operations', sub: 'agent-one', inc: 7, scopes: [] })
  t.match(tokens.verify(first.token), {
    type: 'agent', role: 'agent', subject: 'agent-one', agentId: 'agent-one', incarnation: 7, keyDigest: null, agentType: null
  })
})

t.test('tokens: an admin token expires with its session', async t => {
  const { tokens, now } = build()
  const { token, expiresIn, expiresAt } = tokens.issueAdmin({ username: 'root', sessionId: 's1', expiresAt: now() + 60_000 })
  t.equal(expiresIn, 60)
  t.match(tokens.verify(token), {
    type: 'admin', role: 'admin', subject: 'root', agentId: 'user_root', sessionId: 's1', scopes: ['admin', 'agent_management'], expiresAt
  })
  now.advance(60_000)
  t.equal(reasonOf(() => tokens.verify(token)), 'expired')
})

t.test('tokens: a token expires at its second, without leeway', async t => {
  const { tokens, now } = build()
  const { token, expiresAt } = tokens.issueAgent({ agentId: 'agent-one', incarnation: 1 })
  now.advance(expiresAt * 1000 - now() - 1)
  t.ok(tokens.verify(token))
  now.advance(1)
  t.equal(reasonOf(() => tokens.verify(token)), 'expired')
  t.same(await refusal(() => tokens.verify(token)), { type: 'token-invalid', status: 401, detail: 'Invalid or expired token' })
})

t.test('tokens: a token with any invalid claim is refused', async t => {
  const { tokens, signer } = build()
  const good = tokens.claims(tokens.issueAgent({ agentId: 'agent-one', incarnation: 1 }).token)
  const wrong: Record<string, Record<string, unknown>> = {
    'another namespace': { iss: 'agent-registry:other' },
    'no issuer': { iss: undefined },
    'another audience': { aud: 'arcp:validate' },
    'no audience': { aud: undefined },
    'no type': { typ: undefined },
    'an unknown type': { typ: 'peer' },
    'no role': { role: undefined },
    'a role of another type': { role: 'admin' },
    'no expiry': { exp: undefined },
    'an expiry that is text': { exp: String(good.exp) },
    'no time of issue': { iat: undefined },
    'no id': { jti: undefined },
    'no subject': { sub: '' },
    'an agent token without agent': { agent_id: undefined },
    'an admin token without session': { typ: 'admin', role: 'admin' },
    'a temporary token without key': { typ: 'temp', aud: 'arcp:validate' },
    'an incarnation that is text': { inc: '1' },
    'scopes that are text': { scopes: 'admin' }
  }
  for (const [name, change] of Object.entries(wrong)) {
    const token = signer.sign({ ...good, ...change } as Claims)
    t.equal(reasonOf(() => tokens.verify(token)), 'invalid', name)
  }
  t.ok(tokens.verify(signer.sign(good)), 'the same token without the fault is accepted')
  t.match(tokens.verify(signer.sign({ ...good, scopes: undefined, iat_ms: undefined })), { scopes: [], issuedAt: good.iat * 1000 })
  t.match(tokens.verify(signer.sign({ ...good, typ: 'user', role: 'user', agent_id: undefined })), { agentId: null })
})

t.test('tokens: a token with another secret or without a signature is refused', async t => {
  const { tokens } = build()
  const stranger = hmacSigner('another secret of 32 characters!!')
  const forged = stranger.sign(tokens.claims(tokens.issueAgent({ agentId: 'agent-one', incarnation: 1 }).token))
  for (const token of [forged, '', 'abc', 'a.b.c']) t.equal(reasonOf(() => tokens.verify(token)), 'invalid')
})

t.test('tokens: tokens of every role can be minted', async t => {
  const { tokens, now } = build()
  const request = { subject: 'alice', agentId: 'agent-one', scopes: ['read'], sessionId: 's1', incarnation: null }
  for (const role of ['user', 'agent', 'admin'] as const) {
    const { token, expiresIn } = tokens.mint({ ...request, role, agentType: 'testing' })
    t.equal(expiresIn, 3600)
    t.match(tokens.verify(token), {
      type: role, role, subject: 'alice', agentId: 'agent-one', scopes: ['read'], sessionId: 's1', agentType: 'testing'
    })
  }
  t.equal(tokens.mint({ ...request, role: 'user', endsAt: now() + 10_000 }).expiresIn, 10)
  t.equal(reasonOf(() => tokens.mint({ ...request, role: 'user', endsAt: now() })), 'expired')
  t.match(await refusal(() =>
    tokens.mint({ ...request, role: 'admin', sessionId: null })), { type: 'insufficient-permissions', status: 403 })
})

t.test('tokens: a refresh keeps every claim and renews the lifetime', async t => {
  const { tokens, now } = build()
  const old = tokens.issueAgent({ agentId: 'agent-one', incarnation: 7 })
  now.advance(hour / 2)
  const { token, expiresIn, tokenId } = tokens.refresh(tokens.verify(old.token))
  t.equal(expiresIn, 3600)
  t.not(tokenId, old.tokenId)
  const { iat: _1, exp: _2, iat_ms: _3, jti: _4, ...kept } = tokens.claims(token)
  const { iat: _5, exp: _6, iat_ms: _7, jti: _8, ...before } = tokens.claims(old.token)
  t.same(kept, before)
})

t.test('tokens: a refreshed token does not outlive its session', async t => {
  const { tokens, now } = build()
  const old = tokens.verify(tokens.issueAdmin({ username: 'root', sessionId: 's1', expiresAt: now() + 60_000 }).token)
  t.equal(tokens.refresh(old, now() + 30_000).expiresIn, 30)
  t.equal(tokens.refresh(old).expiresAt, old.expiresAt)
  t.equal(reasonOf(() => tokens.refresh(principal({ type: 'user', role: 'user', sessionId: 's1', expiresAt: null }))), 'expired')
})

t.test('tokens: temporary tokens and admin tokens without a session cannot be refreshed', async t => {
  const { tokens } = build()
  const temp = tokens.verify(tokens.issueTemp({ agentId: 'agent-one', agentType: 'testing', keyDigest: 'd1' }).token)
  t.match(await refusal(() => tokens.refresh(temp)), { type: 'insufficient-permissions', status: 403 })
  t.match(await refusal(() => tokens.refresh(principal({ type: 'admin', role: 'admin' }))), { type: 'insufficient-permissions' })
})

const bearer = (subject: string): Principal => ({
  type: 'user',
  role: 'user',
  subject,
  agentId: null,
  incarnation: null,
  tokenId: subject,
  sessionId: null,
  expiresAt: 1,
  scopes: [],
  keyDigest: null
})

t.test('verified tokens: the newest tokens are cached, at most twice the limit', async t => {
  const tokens = new VerifiedTokens(2)
  for (const name of ['a', 'b', 'c', 'd', 'e']) tokens.set(name, bearer(name))
  t.same([tokens.get('a'), tokens.get('b')], [undefined, undefined])
  t.match([tokens.get('d'), tokens.get('e')], [{ subject: 'd' }, { subject: 'e' }])
  tokens.delete('d')
  tokens.delete('e')
  t.same([tokens.get('d'), tokens.get('e')], [undefined, undefined])
})

t.test('verified tokens: a frequently used token stays cached', async t => {
  const tokens = new VerifiedTokens(2)
  tokens.set('kept', bearer('kept'))
  for (let index = 0; index < 20; index++) {
    tokens.set(`other-${index}`, bearer('other'))
    t.match(tokens.get('kept'), { subject: 'kept' })
  }
})

function buildRevocations () {
  const now = manualClock()
  return { now, revocations: new Revocations({ kvReplica: shared(now), maxTokenLifeMs: hour, now }) }
}

t.test('revocations: a token is revoked by its id', async t => {
  const { revocations, now } = buildRevocations()
  await revocations.revokeToken('token-1', now() / 1000 + 60)
  await revocations.revokeToken('token-2', null)
  t.equal(revocations.check(principal()), 'revoked')
  t.equal(revocations.check(principal({ tokenId: 'token-2' })), 'revoked')
  t.equal(revocations.check(principal({ tokenId: 'token-3' })), 'ok')
})

t.test('revocations: tokens of an agent are revoked up to an incarnation', async t => {
  const { revocations, now } = buildRevocations()
  await revocations.revokeAgent({ agentId: 'agent-one', incarnation: 5, mayRegister: false })
  t.equal(revocations.check(principal({ incarnation: 4 })), 'revoked')
  t.equal(revocations.check(principal({ incarnation: 5 })), 'revoked')
  t.equal(revocations.check(principal({ incarnation: 6 })), 'ok')
  t.equal(revocations.check(principal({ agentId: 'agent-two' })), 'ok')
  t.equal(revocations.check(principal({ incarnation: null, issuedAt: now() - 1 })), 'revoked')
  t.equal(revocations.check(principal({ incarnation: null, issuedAt: undefined })), 'revoked')
  t.equal(revocations.check(principal({ incarnation: null, issuedAt: now() })), 'ok', 'later tokens are not affected')
  t.equal(revocations.check(principal({ type: 'admin', role: 'admin' })), 'ok', 'an admin with the name of an agent is not affected')
})

t.test('revocations: a revocation stays when its store entry disappears', async t => {
  const now = manualClock()
  const state = shared(now)
  const revocations = new Revocations({ kvReplica: state, maxTokenLifeMs: hour, now })
  await revocations.revokeToken('token-1', null)
  await revocations.revokeAgent({ agentId: 'agent-two', incarnation: 5, mayRegister: false })
  for (const [kind, key] of [['revoked-token', 'token-1'], ['revoked-agent', 'agent-two']] as const) {
    t.type(await state.store.take(kind, key), 'string')
  }
  state.reloaded([])
  t.equal(revocations.check(principal()), 'revoked')
  t.equal(revocations.check(principal({ agentId: 'agent-two', tokenId: 'token-3' })), 'revoked')
})

t.test('revocations: an unregistered agent may only register again', async t => {
  const { revocations } = buildRevocations()
  await revocations.revokeAgent({ agentId: 'agent-one', incarnation: 5, mayRegister: true })
  t.equal(revocations.check(principal()), 'register-only')
  t.equal(revocations.check(principal({ incarnation: 6 })), 'ok')
})

t.test('revocations: the stricter and newer of several revocations applies', async t => {
  const { revocations } = buildRevocations()
  await revocations.revokeAgent({ agentId: 'agent-one', incarnation: 5, mayRegister: false })
  await revocations.revokeAgent({ agentId: 'agent-one', incarnation: 7, mayRegister: true })
  await revocations.revokeAgent({ agentId: 'agent-one', incarnation: 6, mayRegister: true })
  t.same([5, 6, 7, 8].map(incarnation =>
    revocations.check(principal({ incarnation }))), ['revoked', 'register-only', 'register-only', 'ok'])
  await revocations.revokeAgent({ agentId: 'agent-one', incarnation: 7, mayRegister: false })
  t.equal(revocations.check(principal({ incarnation: 7 })), 'revoked')
})

t.test('revocations: an entry is kept no longer than a token can live', async t => {
  const { revocations, now } = buildRevocations()
  await revocations.revokeToken('token-1', now() / 1000 + 60)
  await revocations.revokeAgent({ agentId: 'agent-one', incarnation: 5, mayRegister: false })
  now.advance(60_000)
  revocations.sweep()
  t.equal(revocations.size, 1)
  now.advance(hour)
  revocations.sweep()
  t.equal(revocations.size, 0)
})

t.test('revocations: listeners are called until they unsubscribe', async t => {
  const { revocations } = buildRevocations()
  const received: Revoked[] = []
  const stop = revocations.on('revoked', revoked => received.push(revoked))
  await revocations.revokeToken('token-1', null)
  await revocations.revokeAgent({ agentId: 'agent-one', incarnation: 5, mayRegister: true })
  stop()
  await revocations.revokeToken('token-2', null)
  t.same(received, [{ jti: 'token-1' }, { agentId: 'agent-one', incarnation: 5, mayRegister: true }])
})

t.test('expiring map: expired entries are dropped without a timer', async t => {
  const now = manualClock()
  const map = new ExpiringMap<number>(now)
  for (let n = 0; n < 63; n++) map.set(`old-${n}`, n, now() + 10)
  now.advance(10)
  t.equal(map.get('old-1'), undefined)
  map.set('new', 1, now() + 10)
  t.equal(map.size, 1)
  t.equal(map.take('new'), 1)
  t.equal(map.take('new'), undefined)
})
