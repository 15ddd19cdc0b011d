import { createHmac, randomUUID } from 'node:crypto'
import t, { type Test } from 'tap'
import { hmacSigner } from '../auth/helper.js'
import type { Claims } from '../../../src/protocol/schemas/claims.js'
import {
  answerChecker, build, fingerprint, problemOf, registration, secret, until, type Harness, type Json
} from '../../support/harness.js'

const answers = answerChecker()
const x = (length: number) => 'x'.repeat(length)
const print = { 'x-client-fingerprint': fingerprint }
const base64 = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
const claimsOf = (token: string): Json => JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString())

type Admin = Awaited<ReturnType<Harness['admin']>>

function minting (registry: Harness, admin: Admin) {
  const good = { user_id: 'some@body', agent_id: 'some-body' }
  const mint = (more: object = {}) => registry.post('/tokens/mint', { ...admin, body: { ...good, ...more } })
  return { mint, minted: async (more: object = {}): Promise<string> => (await mint(more)).body.access_token }
}

t.test('mint', async t => {
  const registry = await build(t, {}, answers)
  const admin = await registry.admin()
  const { mint, minted } = minting(registry, admin)

  const good: Array<[more: object, claims: object]> = [
    [{}, { role: 'user', typ: 'user', sub: 'some@body', agent_id: 'some-body', scopes: [] }],
    [{ user_id: 'ab', agent_id: 'abc' }, { sub: 'ab', agent_id: 'abc' }],
    [{ user_id: x(100), agent_id: x(100) }, {}],
    [{ user_id: ' a.b_c@d-e ' }, { sub: 'a.b_c@d-e' }],
    [{ role: 'USER' }, { role: 'user' }],
    [{ role: 'agent', agent_type: 'TESTING' }, { role: 'agent', typ: 'agent', agent_type: 'testing' }],
    [{ role: 'admin' }, { role: 'admin', typ: 'admin' }],
    [{ scopes: Array(50).fill('a.b:c-d_e') }, { scopes: Array(50).fill('a.b:c-d_e') }],
    [{ scopes: [x(100)], agent_type: null, temp_registration: false }, { scopes: [x(100)] }]
  ]
  for (const [more, claims] of good) {
    await t.test(`mint: with ${JSON.stringify(more).slice(0, 60)}`, async t => {
      const { status, body } = await mint(more)
      t.equal(status, 200)
      t.match(body, { token_type: 'bearer', access_token: String })
      t.ok(body.expires_in > 1700 && body.expires_in <= 1800, 'no longer than the session')
      t.match(claimsOf(body.access_token), { ...claims, iss: 'agent-registry:default', aud: 'arcp:operations', sid: String, jti: String })
    })
  }

  const bad: Array<[more: object, path: string]> = [
    [{ user_id: 'a' }, '/user_id'], [{ user_id: x(101) }, '/user_id'], [{ user_id: 'a b' }, '/user_id'],
    [{ user_id: undefined }, '/user_id'],
    [{ agent_id: 'ab' }, '/agent_id'], [{ agent_id: x(101) }, '/agent_id'], [{ agent_id: 'a.b' }, '/agent_id'],
    [{ agent_id: undefined }, '/agent_id'],
    [{ scopes: Array(51).fill('a') }, '/scopes'], [{ scopes: [x(101)] }, '/scopes/0'], [{ scopes: ['a b'] }, '/scopes/0'],
    [{ scopes: [''] }, '/scopes/0'],
    [{ role: 'root' }, '/role'], [{ role: 1 }, '/role'], [{ agent_type: 'a' }, '/agent_type'], [{ agent_type: x(51) }, '/agent_type']
  ]
  await t.test('mint: invalid requests are refused', async t => {
    for (const [more, path] of bad) {
      const answer = await mint(more)
      t.equal(problemOf(t, answer), 'validation-failed', path)
      t.match(answer.body.errors, [{ path }])
    }
  })

  await t.test('mint: a user cannot read agents, but gets tickets', async t => {
    const token = await minted()
    const answer = await registry.get('/agents', { token })
    t.equal(problemOf(t, answer), 'insufficient-permissions')
    t.equal(answer.body.detail, 'Access denied: user role cannot access agent endpoint')
    t.equal((await registry.post('/ws-tickets', { token })).status, 200)
  })

  await t.test('mint: an agent token acts as its agent only', async t => {
    const token = await minted({ role: 'agent' })
    t.equal((await registry.post('/agents/register', { token, body: registration('some-body') })).status, 200)
    t.equal((await registry.post('/agents/some-body/heartbeat', { token })).status, 200)
    t.equal(problemOf(t, await registry.post('/agents/other-one/heartbeat', { token })), 'insufficient-permissions')
    t.equal(claimsOf(await minted({ role: 'agent' })).inc, (await registry.get('/agents/some-body', admin)).body.incarnation)
  })

  await t.test('mint: an admin token needs the fingerprint of the session', async t => {
    const token = await minted({ role: 'admin' })
    t.equal((await registry.get('/agents/stats', { token, headers: print })).status, 200)
    t.equal(problemOf(t, await registry.get('/agents/stats', { token, headers: { 'x-client-fingerprint': 'another' } })), 'session-invalid')
    t.equal((await registry.get('/auth/session_status', { token, headers: print })).body.user_id, 'some@body')
  })
})

t.test('token inspection', async t => {
  const registry = await build(t, {}, answers)
  const token = await registry.agent()

  await t.test('token inspection: a token in the query is always answered with 200', async t => {
    const valid = await registry.post(`/tokens/validate?token=${token}`)
    t.same(valid.body, { valid: true, payload: claimsOf(token) })
    for (const bad of ['x', `${token}x`, 'a.b.c', '%20']) {
      const answer = await registry.post(`/tokens/validate?token=${bad}`)
      t.same([answer.status, answer.body], [200, { valid: false, error: 'Invalid or expired token' }])
    }
    for (const query of ['', '?token=', '?tokens=x']) {
      const answer = await registry.post(`/tokens/validate${query}`)
      t.equal(problemOf(t, answer), 'validation-failed')
      t.match(answer.body.errors, [{ path: '/token' }])
    }
  })

  await t.test('token inspection: an invalid token of the request is answered with 401', async t => {
    const valid = await registry.get('/tokens/validate', { token })
    t.same(valid.body, { valid: true, agent_id: 'agent-one', payload: claimsOf(token) })
    const none = await registry.get('/tokens/validate')
    t.equal(problemOf(t, none), 'authentication-failed')
    t.match(none.body, { status: 401, valid: false, error: 'No token provided' })
    const bad = await registry.get('/tokens/validate', { token: 'x.y.z' })
    t.equal(problemOf(t, bad), 'token-invalid')
    t.match(bad.body, { status: 401, valid: false, error: 'Invalid token: Invalid or expired token' })
  })
})

t.test('refresh', async t => {
  const registry = await build(t, {}, answers)
  const admin = await registry.admin()
  const { minted } = minting(registry, admin)
  const refresh = (token?: string) => registry.post('/tokens/refresh', { token })
  const fixed = ({ iat, iat_ms: ms, exp, jti, ...claims }: Json) => claims

  await t.test('refresh: every claim but the times is kept', async t => {
    const tokens = [
      await registry.agent(), await minted(), await minted({ role: 'agent', scopes: ['a'] }), await minted({ role: 'admin' }), admin.token
    ]
    for (const token of tokens) {
      const { status, body } = await refresh(token)
      t.equal(status, 200)
      t.match(body, { token_type: 'bearer', expires_in: Number })
      const claims = claimsOf(body.access_token)
      t.same(fixed(claims), fixed(claimsOf(token)))
      t.not(claims.jti, claimsOf(token).jti)
      if (claims.sid) t.ok(claims.exp <= claimsOf(admin.token).exp, 'not longer than the session')
    }
  })

  await t.test('refresh: the new token has the rights of the old one', async t => {
    const token = (await refresh(await registry.agent('agent-two'))).body.access_token
    t.equal((await registry.post('/agents/agent-two/heartbeat', { token })).status, 200)
    const root = (await refresh(admin.token)).body.access_token
    t.equal((await registry.get('/agents/stats', { token: root, headers: print })).status, 200)
  })

  await t.test('refresh: a missing, invalid or temporary token is refused', async t => {
    t.equal(problemOf(t, await refresh()), 'authentication-failed')
    t.equal(problemOf(t, await refresh('x')), 'token-invalid')
    const temp = await refresh(await registry.tempToken('agent-three'))
    t.equal(temp.status, 403)
    t.equal(problemOf(t, temp), 'insufficient-permissions')
  })
})

const now = () => Math.floor(Date.now() / 1000)
const agentClaims = (more: object = {}): Claims => ({
  iss: 'agent-registry:default',
  aud: 'arcp:operations',
  sub: 'agent-one',
  jti: randomUUID(),
  typ: 'agent',
  role: 'agent',
  iat: now(),
  exp: now() +
    60,
  agent_id: 'agent-one',
  ...more
})
const sign = (claims: object, key = secret) => hmacSigner(key).sign(claims as Claims)

/** A token with a custom header; without a hash it is unsigned. */
function handmade (header: object, claims: object, hash?: string) {
  const text = `${base64(header)}.${base64(claims)}`
  return `${text}.${hash ? createHmac(hash, secret).update(text).digest('base64url') : ''}`
}

const forged: Array<[name: string, token: () => string]> = [
  ['without a signature, algorithm none', () => handmade({ alg: 'none', typ: 'JWT' }, agentClaims())],
  ['algorithm NONE', () => handmade({ alg: 'NONE' }, agentClaims())],
  ['without a signature, algorithm HS256', () => handmade({ alg: 'HS256' }, agentClaims())],
  ['another algorithm with the right secret', () => handmade({ alg: 'HS512', typ: 'JWT' }, agentClaims(), 'sha512')],
  ['an algorithm other than that of its signature', () => handmade({ alg: 'RS256', typ: 'JWT' }, agentClaims(), 'sha256')],
  ['signed with another secret', () => sign(agentClaims(), 'another secret of more than thirty-two characters')],
  ['changed after it was signed', () => sign(agentClaims()).replace(/\.[^.]+\./, `.${base64(agentClaims({ agent_id: 'agent-two' }))}.`)],
  ['expired a second ago', () => sign(agentClaims({ exp: now() - 1 }))],
  ['without an expiry', () => sign(agentClaims({ exp: undefined }))],
  ['with an expiry that is not a number', () => sign(agentClaims({ exp: '9999999999' }))],
  ['without a role', () => sign(agentClaims({ role: undefined }))],
  ['without a type', () => sign(agentClaims({ typ: undefined }))],
  ['of an unknown type', () => sign(agentClaims({ typ: 'root' }))],
  ['with the role of another type', () => sign(agentClaims({ role: 'admin' }))],
  ['with the type of another role', () => sign(agentClaims({ typ: 'admin', sid: 'x' }))],
  ['an admin without a session', () => sign(agentClaims({ typ: 'admin', role: 'admin' }))],
  ['an admin with an unknown session', () => sign(agentClaims({ typ: 'admin', role: 'admin', sid: 'x' }))],
  ['for another audience', () => sign(agentClaims({ aud: 'arcp:validate' }))],
  ['without an audience', () => sign(agentClaims({ aud: undefined }))],
  ['of another issuer', () => sign(agentClaims({ iss: 'agent-registry:other' }))],
  ['without an issuer', () => sign(agentClaims({ iss: undefined }))],
  ['an agent without an id', () => sign(agentClaims({ agent_id: undefined }))],
  ['without an id of its own', () => sign(agentClaims({ jti: undefined }))],
  ['a temporary token without a key', () => sign(agentClaims({ typ: 'temp', aud: 'arcp:validate' }))],
  ['claims that are an array', () => handmade({ alg: 'HS256', typ: 'JWT' }, [], 'sha256')],
  ['a malformed header', () => 'x.y.z']
]

t.test('invalid tokens', async t => {
  const registry = await build(t, {}, answers)
  t.equal((await registry.get('/agents', { token: sign(agentClaims()) })).status, 200, 'the corrected token is accepted')
  for (const [name, token] of forged) {
    await t.test(`invalid tokens: ${name} is refused everywhere`, async t => {
      const bad = token()
      for (const path of ['/agents', '/tokens/validate']) {
        const answer = await registry.get(path, { token: bad, headers: print })
        t.equal(answer.status, 401)
        t.match(problemOf(t, answer), /^(token|session)-invalid$/)
      }
      t.equal((await registry.post('/tokens/refresh', { token: bad })).status, 401)
      t.equal((await registry.post(`/tokens/validate?token=${bad}`)).body.valid, false)
    })
  }
})

t.test('secrets: tokens of registries that share or rotate secrets', async t => {
  const next = 'the next secret of more than thirty-two characters'
  const make = (options: object) => build(t, options, answers)
  const [old, both, renewed, other] = [
    await make({ jwt: { secret } }), await make({ jwt: { secret: [next, secret] } }), await make({ jwt: { secret: next } }),
    await make({ namespace: 'other' })
  ]
  const reads = async (registry: Harness, token: string) => (await registry.get('/agents', { token })).status
  const [first, second] = [await old.agent(), await both.agent('agent-two')]
  t.equal(await reads(both, first), 200, 'the former secret still verifies')
  t.equal(await reads(renewed, second), 200, 'the first secret of a list signs')
  t.equal(await reads(renewed, first), 401, 'a removed secret does not verify')
  t.equal(await reads(old, second), 401)
  t.equal(await reads(other, first), 401, 'the namespace is part of a token')
  t.equal(await reads(both, 'x.y.z'), 401, 'a malformed header names no secret')
  t.equal(await reads(both, sign(agentClaims(), next)), 200, 'without a key id the first secret is used')
})

for (const algorithm of ['HS384', 'HS512'] as const) {
  t.test(`tokens: a configured ${algorithm} signs, and is the only algorithm accepted`, async t => {
    const registry = await build(t, { jwt: { algorithm } }, answers)
    const token = await registry.agent()
    t.match(JSON.parse(Buffer.from(token.split('.')[0]!, 'base64url').toString()), { alg: algorithm, kid: String })
    t.equal((await registry.get('/agents', { token })).status, 200)
    t.equal((await registry.get('/agents', { token: sign(agentClaims()) })).status, 401)
    t.same((await registry.get('/.well-known/arcp-configuration')).body.id_token_signing_alg_values_supported, [algorithm])
  })
}

t.test('tokens: a token expires without leeway, and can then be revoked as usual', async t => {
  const registry = await build(t, { jwt: { expiresInMs: 2000 } }, answers)
  const token = await registry.agent()
  t.equal((await registry.get('/agents', { token })).status, 200)
  await until(async () => (await registry.get('/agents', { token })).status === 401)
  t.ok(Date.now() / 1000 >= claimsOf(token).exp - 0.1)
  t.equal(problemOf(t, await registry.get('/agents', { token })), 'token-invalid')
  t.equal((await registry.post('/tokens/revoke', { ...await registry.admin(), body: { token } })).status, 200)
})

function revoking (registry: Harness, admin: Admin) {
  return (body: object) => registry.post('/tokens/revoke', { ...admin, body })
}

async function isRefused (t: Test, registry: Harness, token: string) {
  t.equal(problemOf(t, await registry.get('/agents', { token })), 'token-invalid')
  t.equal(problemOf(t, await registry.post('/tokens/refresh', { token })), 'token-invalid')
  t.equal((await registry.post(`/tokens/validate?token=${token}`)).body.valid, false)
}

t.test('revoke', async t => {
  const registry = await build(t, {}, answers)
  const revoke = revoking(registry, await registry.admin())

  await t.test('revoke: a revoked token ends', async t => {
    const token = await registry.agent('agent-one')
    const { body: other } = await registry.post('/tokens/refresh', { token })
    t.same((await revoke({ token })).body, { status: 'success', message: 'Revoked' })
    await isRefused(t, registry, token)
    t.equal((await registry.get('/agents', { token: other.access_token })).status, 200)
  })

  await t.test('revoke: all tokens and sockets of an agent end, and it registers again with a key', async t => {
    const token = await registry.agent('agent-two')
    const socket = await registry.agentSocket(token)
    const temp = await registry.tempToken('agent-two')
    const { body: other } = await registry.post('/tokens/refresh', { token })
    t.equal((await revoke({ agent_id: 'agent-two' })).status, 200)
    t.equal((await socket.closed).code, 4001)
    for (const ended of [token, other.access_token, temp]) await isRefused(t, registry, ended)
    t.equal(problemOf(t, await registry.post('/agents/register', { token: temp, body: registration('agent-two') })), 'token-invalid')
    t.equal((await revoke({ agent_id: 'never-seen' })).status, 200)
  })

  await t.test('revoke: invalid input is named', async t => {
    for (const body of [{}, { token: 'x', agent_id: 'agent-one' }]) t.equal(problemOf(t, await revoke(body)), 'invalid-input')
    const strange = await revoke({ token: 'not-a-token-of-ours' })
    t.equal(problemOf(t, strange), 'invalid-input')
    t.match(strange.body, { status: 400, field: 'token' })
    t.notMatch(strange.text, 'not-a-token-of-ours')
    for (const body of [{ token: '' }, { agent_id: 'ab' }, { agent_id: 7 }]) t.equal(problemOf(t, await revoke(body)), 'validation-failed')
  })
})

t.test('tickets', async t => {
  const registry = await build(t, {}, answers)
  const token = await registry.agent()
  const ask = (body?: unknown, bearer: string | undefined = token) => registry.post('/ws-tickets', { token: bearer, body })

  await t.test('tickets: a ticket is for one tier, by default the agents tier', async t => {
    for (const body of [undefined, {}, { tier: 'agents' }, { tier: 'public' }, { tier: 'dashboard' }]) {
      const answer = await ask(body)
      t.equal(answer.status, 200)
      t.match(answer.body, { ticket: /^[\w-]{43}$/, expires_in: 30 })
    }
    t.equal((await registry.post('/ws-tickets', { token, raw: '' })).status, 200)
  })

  await t.test('tickets: other tiers and tokens without the right are refused', async t => {
    for (const body of [{ tier: 'other' }, { tier: 1 }, [], 'agents']) t.equal(problemOf(t, await ask(body)), 'validation-failed')
    t.equal(problemOf(t, await registry.post('/ws-tickets')), 'authentication-failed')
    t.equal(problemOf(t, await ask({}, 'x')), 'token-invalid')
    t.equal(problemOf(t, await ask({}, await registry.tempToken('agent-two'))), 'insufficient-permissions')
  })

  await t.test('tickets: a ticket opens one socket', async t => {
    const { body: { ticket } } = await ask()
    const socket = registry.socket(`/agents/ws?ticket=${ticket}`)
    t.match(await socket.next('auth_success'), { agent_id: 'agent-one' })
    t.equal((await registry.socket(`/agents/ws?ticket=${ticket}`).closed).code, 4001)
    socket.close()
  })
})

t.test('responses: they match their schemas', async t => { t.same(answers.findings, []) })
