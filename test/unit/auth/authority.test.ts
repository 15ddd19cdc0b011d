import t from 'tap'
import { AdminAccount, PasswordHasher } from '../../../src/auth/passwords.js'
import { admin, agentKey, buildAuthority, cheapCost, hmacSigner, login, principal, refusal } from './helper.js'
import type { Principal } from '../../../src/protocol/principal.js'

const tokenInvalid = { type: 'token-invalid', status: 401, detail: 'Invalid or expired token' }
const sessionInvalid = { type: 'session-invalid', status: 401, detail: 'Admin session validation failed' }
const badLogin = { type: 'authentication-failed', status: 401, detail: 'Authentication failed: Invalid admin credentials' }

/** The rejection of `run`, including members that clients do not get. */
function failure (run: Promise<unknown>): Promise<unknown> {
  return run.then(() => undefined, (error: unknown) => error)
}

async function loggedIn (built: ReturnType<typeof buildAuthority>, changes: Partial<typeof login> = {}) {
  const { access_token: token } = await built.authority.login({ ...login, ...changes })
  return { token, principal: await built.authority.authenticate(token) }
}

t.test('login: an admin logs in', async t => {
  const built = buildAuthority()
  const answer = await built.authority.login(login)
  t.match(answer, { access_token: String, token_type: 'bearer', expires_in: 1800, agent_id: 'user_root' })
  t.match(await built.authority.authenticate(answer.access_token), { type: 'admin', subject: 'root' })
})

t.test('login: a wrong name and a wrong password get the same answer, and count', async t => {
  const { authority } = buildAuthority()
  for (const wrong of [{ username: 'toor' }, { password: 'x' }, { username: 'rooT' }, { username: '', password: '' }]) {
    t.same(await refusal(() => authority.login({ ...login, ...wrong })), badLogin)
  }
  const settled = await Promise.all(Array.from({ length: 10 }, () => refusal(() => authority.login({ ...login, password: 'x' }))))
  t.equal(settled.filter(({ type }) => type === 'authentication-failed').length, 1)
  t.match(await refusal(() => authority.login(login)), { type: 'rate-limit-exceeded', status: 429 })
})

t.test('login: without a configured password every login is refused', async t => {
  const { authority } = buildAuthority({ admin: { username: 'root' } })
  t.same(await refusal(() => authority.login(login)), badLogin)
})

t.test('login: a password that could not be hashed for lack of a slot is hashed later', async t => {
  const { attempts } = buildAuthority()
  const passwords = new PasswordHasher({ cost: cheapCost, concurrency: 1, queue: 0 })
  const account = new AdminAccount({ ...admin, passwords, attempts })
  const busy = passwords.hashPassword('x')
  t.match(await refusal(() => account.check(login)), { type: 'rate-limit-exceeded' })
  await busy
  t.equal(await account.check(login), undefined)
  t.equal(await account.check(login), undefined)
})

t.test('logout: ends every token of the session', async t => {
  const built = buildAuthority()
  const first = await loggedIn(built)
  const second = await loggedIn(built)
  const minted = await built.authority.mint(
    first.principal, { subject: 'alice', agentId: 'agent-one', role: 'agent', scopes: [], incarnation: null }
  )
  t.ok(await built.authority.authenticate(minted.token))
  await built.authority.logout(first.principal)
  t.same(await refusal(() => built.authority.authenticate(first.token)), sessionInvalid)
  t.same(await refusal(() => built.authority.authenticate(minted.token)), sessionInvalid)
  t.same(await refusal(() => built.authority.refresh(first.token)), sessionInvalid)
  t.ok(await built.authority.authenticate(second.token))
})

t.test('logout: a token without a session ends when its bearer logs out', async t => {
  const { authority, tokens } = buildAuthority()
  const { token } = tokens.issueAgent({ agentId: 'agent-one', incarnation: 1 })
  await authority.logout(tokens.verify(token))
  t.same(await refusal(() => authority.authenticate(token)), tokenInvalid)
})

t.test('sessions: a given fingerprint must match for an admin, and only for an admin', async t => {
  const built = buildAuthority()
  const { token, principal: root } = await loggedIn(built)
  t.ok(await built.authority.authenticate(token, { fingerprint: 'browser-1' }))
  t.same(await refusal(() => built.authority.authenticate(token, { fingerprint: 'browser-2' })), sessionInvalid)
  const minted = await built.authority.mint(root, { subject: 'alice', agentId: 'agent-one', role: 'agent', scopes: [], incarnation: null })
  t.ok(await built.authority.authenticate(minted.token, { fingerprint: 'somebody else' }))
})

t.test('tokens: a forged token does not affect sessions', async t => {
  const built = buildAuthority()
  const { token, principal: root } = await loggedIn(built)
  const forged = hmacSigner('another secret of 32 characters!!').sign(built.tokens.claims(token))
  t.same(await refusal(() => built.authority.authenticate(forged)), tokenInvalid)
  t.same(await refusal(() => built.authority.refresh(forged)), tokenInvalid)
  t.ok(await built.authority.authenticate(token))
  t.match(await built.authority.pins.session(root), { username: 'root' })
})

t.test('tokens: an expired token is reported as expired', async t => {
  const { authority, tokens, now } = buildAuthority()
  const { token } = tokens.issueAgent({ agentId: 'agent-one', incarnation: 1 })
  const bearer = await authority.authenticate(token)
  now.advance(3_600_000)
  for (const run of [authority.authenticate(token), authority.check(bearer)]) {
    t.match(await failure(run), { type: 'token-invalid', reason: 'expired' })
  }
  t.match(await failure(authority.authenticate('x')), { reason: 'invalid' })
  t.equal(await authority.check(principal({ expiresAt: null })), undefined)
})

t.test('tokens: an unregistered agent may only register, and a removed agent may do nothing', async t => {
  const { authority, tokens, revocations } = buildAuthority()
  const { token } = tokens.issueAgent({ agentId: 'agent-one', incarnation: 1 })
  await revocations.revokeAgent({ agentId: 'agent-one', incarnation: 1, mayRegister: true })
  t.same(await refusal(() => authority.authenticate(token)), tokenInvalid)
  t.ok(await authority.authenticate(token, { for: 'register' }))
  await revocations.revokeAgent({ agentId: 'agent-one', incarnation: 1, mayRegister: false })
  t.same(await refusal(() => authority.authenticate(token, { for: 'register' })), tokenInvalid)
})

t.test('tokens: a token of an older incarnation is refused unless a stored answer exists', async t => {
  const { authority, tokens, incarnations } = buildAuthority()
  const { token } = tokens.issueAgent({ agentId: 'agent-one', incarnation: 5 })
  for (const current of [5, 4]) {
    incarnations.set('agent-one', current)
    t.ok(await authority.authenticate(token))
  }
  incarnations.set('agent-one', 6)
  t.same(await refusal(() => authority.authenticate(token)), tokenInvalid)
  t.ok(await authority.authenticate(token, { staleAllowed: true }))
  const temp = tokens.issueTemp({ agentId: 'agent-one', agentType: 'testing', keyDigest: 'd' })
  t.ok(await authority.authenticate(temp.token), 'a temporary token has no incarnation')
})

t.test('host tokens: the hook of the host verifies foreign tokens', async t => {
  const guest = principal({ agentId: 'guest-agent', expiresAt: null, scopes: ['read'] })
  const asked: string[] = []
  const { authority, tokens, revocations } = buildAuthority({
    authenticate (token) {
      asked.push(token)
      return token === 'guest' ? guest : null
    }
  })
  t.same(await authority.authenticate('guest'), guest)
  t.same(await refusal(() => authority.authenticate('stranger')), tokenInvalid)
  await authority.authenticate(tokens.issueAgent({ agentId: 'agent-one', incarnation: 1 }).token)
  t.same(asked, ['guest', 'stranger'])
  t.same(await refusal(() => authority.refresh('guest')), tokenInvalid, 'and the host renews them')
  await revocations.revokeToken(guest.tokenId, null)
  t.same(await refusal(() => authority.authenticate('guest')), tokenInvalid)
})

t.test('host tokens: a hook that throws, returns invalid data or hangs refuses access', async t => {
  const alive = setInterval(() => {}, 1000)
  t.teardown(() => clearInterval(alive))
  const lies = [{}, { ...principal(), role: 'king' }, { ...principal(), scopes: null }, undefined, 'admin']
  for (const lie of lies) {
    const { authority } = buildAuthority({ authenticate: () => lie as Principal })
    t.same(await refusal(() => authority.authenticate('x')), tokenInvalid)
  }
  const throwing = buildAuthority({ authenticate () { throw new Error('broken') } })
  t.same(await refusal(() => throwing.authority.authenticate('x')), tokenInvalid)
  const claiming = buildAuthority({ authenticate: () => principal({ type: 'admin', role: 'admin', sessionId: 'made up' }) })
  t.same(await refusal(() => claiming.authority.authenticate('x')), sessionInvalid)
  const hanging = buildAuthority({ authenticate: () => new Promise<null>(() => {}) })
  t.match(await refusal(() => hanging.authority.authenticate('x')), { type: 'hook-failed', status: 503 })
})

t.test('tokens: refreshed and minted tokens expire with their session', async t => {
  const built = buildAuthority()
  const { token, principal: root } = await loggedIn(built)
  built.now.advance(600_000)
  t.equal((await built.authority.refresh(token)).expiresIn, 1200)
  const request = { subject: 'alice', agentId: 'agent-one', scopes: ['read'], incarnation: null }
  const minted = await built.authority.mint(root, { ...request, role: 'admin' })
  t.equal(minted.expiresIn, 1200)
  t.match(await built.authority.authenticate(minted.token), { role: 'admin', subject: 'alice', sessionId: root.sessionId })
  t.match(await refusal(() =>
    built.authority.mint(principal(), { ...request, role: 'agent' })), { type: 'insufficient-permissions', status: 403 })
})

t.test('tokens: principals without a session mint and refresh without a session end', async t => {
  const { authority, tokens } = buildAuthority()
  const hostAdmin = principal({ type: 'admin', role: 'admin' })
  const {
    token, expiresIn
  } = await authority.mint(hostAdmin, { subject: 'alice', agentId: 'agent-one', role: 'user', scopes: [], incarnation: null })
  t.equal(expiresIn, 3600)
  t.equal((await authority.refresh(token)).expiresIn, 3600)
  const temp = tokens.issueTemp({ agentId: 'agent-one', agentType: 'testing', keyDigest: 'd' })
  t.match(await refusal(() => authority.refresh(temp.token)), { type: 'insufficient-permissions' })
})

t.test('temporary tokens: an agent key is exchanged for one', async t => {
  const { authority, keys } = buildAuthority()
  const request = { agentId: 'agent-one', agentType: 'Testing', agentKey, address: '192.0.2.1' }
  const answer = await authority.requestTempToken(request)
  t.match(
    answer, { token_type: 'bearer', expires_in: 900, message: 'Temporary token issued. Use this token to complete agent registration.' }
  )
  const bearer = await authority.authenticate(answer.temp_token)
  t.match(bearer, { type: 'temp', agentId: 'agent-one', keyDigest: keys.find(agentKey)?.digest })
})

t.test('temporary tokens: missing and short credentials are invalid input and cost no attempt', async t => {
  const { authority } = buildAuthority()
  const request = { agentId: 'agent-one', agentType: 'testing', agentKey, address: '192.0.2.1' }
  for (let n = 0; n < 10; n++) {
    for (const member of ['agentId', 'agentType', 'agentKey']) {
      t.match(await failure(authority.requestTempToken({ ...request, [member]: undefined })), {
        type: 'invalid-input', statusCode: 400, members: { field: 'agent credentials' }
      })
    }
    t.match(await failure(authority.requestTempToken({ ...request, agentKey: 'short' })), {
      type: 'invalid-input', members: { field: 'agent_key' }
    })
  }
  t.ok(await authority.requestTempToken(request))
})

t.test('temporary tokens: a wrong key costs its address an attempt, a right one does not', async t => {
  const { authority } = buildAuthority()
  const request = { agentId: 'agent-one', agentType: 'testing', agentKey, address: '192.0.2.1' }
  await Promise.all(Array.from({ length: 100 }, () => authority.requestTempToken(request)))
  const wrong = { ...request, agentKey: `${agentKey}x` }
  const detail = 'Authentication failed: Invalid agent registration key'
  for (let n = 0; n < 5; n++) {
    t.same(await refusal(() =>
      authority.requestTempToken(wrong)), { type: 'authentication-failed', status: 401, detail })
  }
  t.match(await refusal(() => authority.requestTempToken(request)), { type: 'rate-limit-exceeded' })
  t.ok(await authority.requestTempToken({ ...request, address: '192.0.2.2' }))
})

t.test('PIN: it is set once, and required from then on', async t => {
  const built = buildAuthority()
  const { authority } = built
  const { principal: root } = await loggedIn(built)
  const from = login.address
  t.same(await authority.pins.status(root), { pin_set: false })
  t.match(await refusal(() => authority.pins.verify(root, '7391', from)), { type: 'pin-not-set', status: 400 })
  t.equal(await authority.pins.require(root, undefined, from), undefined)
  await authority.pins.set(root, ' 7391 ')
  t.same(await authority.pins.status(root), { pin_set: true })
  t.match(await refusal(() => authority.pins.set(root, '8462')), { type: 'pin-already-set', status: 400 })
  t.equal(await authority.pins.verify(root, '7391', from), undefined)
  t.match(await refusal(() => authority.pins.verify(root, '7392', from)), { type: 'pin-incorrect', status: 401 })
  t.equal(await authority.pins.require(root, '7391', from), undefined)
  t.match(await refusal(() => authority.pins.require(root, undefined, from)), { type: 'pin-required', status: 400 })
  t.match(await refusal(() => authority.pins.require(root, ' ', from)), { type: 'pin-required' })
  t.match(await refusal(() => authority.pins.require(root, '7392', from)), { type: 'pin-incorrect' })
})

t.test('PIN: wrong PINs are rate-limited', async t => {
  const built = buildAuthority()
  const { principal: root } = await loggedIn(built)
  await built.authority.pins.set(root, '7391')
  const tries = Array.from({ length: 20 }, (_, n) => refusal(() => built.authority.pins.require(root, `wrong-${n}`, `192.0.2.${n}`)))
  const types = (await Promise.all(tries)).map(({ type }) => type)
  t.equal(types.filter(type => type === 'pin-incorrect').length, 5)
  t.match(await refusal(() => built.authority.pins.verify(root, '7391', '192.0.2.99')), { type: 'rate-limit-exceeded' })
})

t.test('PIN: short, long and weak PINs are refused and not echoed', async t => {
  const built = buildAuthority()
  const { principal: root } = await loggedIn(built)
  const weak = ['1234', '0000', '5555', '9999', 'password', 'Admin', '12345', '123456', ' 1234 ']
  for (const pin of [...weak, '123', 'x'.repeat(33), '    ']) {
    const { type, status, detail } = await refusal(() => built.authority.pins.set(root, pin))
    t.same([type, status], ['validation-failed', 422], pin)
    t.notMatch(detail, pin === '123' ? '123 ' : pin)
  }
  t.equal(await built.authority.pins.set(root, '00000'), undefined)
  for (const pin of ['', 'x'.repeat(33)]) {
    t.match(await refusal(() => built.authority.pins.verify(root, pin, login.address)), { type: 'validation-failed' })
  }
})

t.test('PIN: of two concurrent settings one succeeds', async t => {
  const built = buildAuthority()
  const { principal: root } = await loggedIn(built)
  const settled = await Promise.allSettled([built.authority.pins.set(root, '7391'), built.authority.pins.set(root, '8462')])
  t.equal(settled.filter(({ status }) => status === 'fulfilled').length, 1)
  t.match(await refusal(() => built.authority.pins.set(root, '8462')), { type: 'pin-already-set' })
})

t.test('PIN: setting one needs a session that stays live', async t => {
  const built = buildAuthority()
  const { principal: root } = await loggedIn(built)
  const hostAdmin = principal({ type: 'admin', role: 'admin' })
  t.same(await refusal(() => built.authority.pins.set(hostAdmin, '7391')), sessionInvalid)
  t.same(await refusal(() => built.authority.pins.status(hostAdmin)), sessionInvalid)
  t.equal(await built.authority.pins.require(hostAdmin, undefined, login.address), undefined)
  const setting = refusal(() => built.authority.pins.set(root, '7391'))
  await built.authority.logout(root)
  t.same(await setting, sessionInvalid)
  t.same(await refusal(() => built.authority.pins.require(root, undefined, login.address)), sessionInvalid)
})
