import t from 'tap'
import {
  answerChecker, build, fingerprint, keys, password, problemOf, registration, until, type Call, type Harness, type Json
} from '../../support/harness.js'

const patient = { attempts: { burst: 1000, windowMs: 60_000 } }
const answers = answerChecker()
const x = (length: number) => 'x'.repeat(length)
const print = { 'x-client-fingerprint': fingerprint }
const right = { username: 'admin', password }

t.test('login', async t => {
  const registry = await build(t, patient, answers)
  const login = (body: unknown, headers: Record<string, string> = print) => registry.post('/auth/login', { body, headers })

  await t.test('login: the right name and password open a session', async t => {
    const { status, body, headers } = await login(right)
    t.equal(status, 200)
    t.match(headers.get('content-type'), 'application/json')
    t.match(body, { access_token: /^[\w-]+\.[\w-]+\.[\w-]+$/, token_type: 'bearer', expires_in: 1800, agent_id: 'user_admin' })
  })

  const refused: Array<[name: string, body: unknown, status: number, type: string, detail: RegExp]> = [
    ['a wrong password', {
      ...right, password: 'wrong'
    }, 401, 'authentication-failed', /^Authentication failed: Invalid admin credentials$/],
    ['a wrong name', { ...right, username: 'nobody' }, 401, 'authentication-failed', /^Authentication failed: Invalid admin credentials$/],
    ['a password with an extra blank', { ...right, password: `${password} ` }, 401, 'authentication-failed', /Invalid admin credentials/],
    ['the longest name', { ...right, username: x(255) }, 401, 'authentication-failed', /Invalid admin credentials/],
    ['the longest password', { ...right, password: x(1024) }, 401, 'authentication-failed', /Invalid admin credentials/],
    ['the credentials of an agent', {
      agent_id: 'agent-one', agent_type: 'testing'
    }, 401, 'authentication-failed', /Direct agent login not allowed/],
    ['nothing', {}, 401, 'authentication-failed', /Invalid credentials - provide either/],
    ['nulls', { username: null, password: null, agent_id: null }, 401, 'authentication-failed', /provide either/],
    ['only a name', { username: 'admin' }, 401, 'authentication-failed', /provide either/]
  ]
  for (const [name, body, status, type, detail] of refused) {
    await t.test(`login: a request with ${name} is refused`, async t => {
      const answer = await login(body)
      t.equal(answer.status, status)
      t.equal(problemOf(t, answer), type)
      t.match(answer.body.detail, detail)
      t.equal(answer.headers.get('www-authenticate'), 'Bearer')
    })
  }

  const invalid: Array<[body: unknown, path: string]> = [
    [{ ...right, username: x(256) }, '/username'],
    [{ ...right, username: 7 }, '/username'],
    [{ ...right, password: '' }, '/password'],
    [{ ...right, password: x(1025) }, '/password'],
    [{ ...right, agent_id: ' ' }, '/agent_id'],
    [{ ...right, agent_id: x(101) }, '/agent_id'],
    [{ ...right, agent_id: 'a b' }, '/agent_id'],
    [{ ...right, agent_type: '' }, '/agent_type'],
    [{ ...right, agent_type: x(51) }, '/agent_type'],
    [{ ...right, agent_type: 'a.b' }, '/agent_type'],
    [{ ...right, agent_key: x(201) }, '/agent_key'],
    [[right], ''],
    [null, ''],
    ['text', '']
  ]
  await t.test('login: validation errors name the field and do not echo the input', async t => {
    for (const [body, path] of invalid) {
      const answer = await login(body)
      t.equal(problemOf(t, answer), 'validation-failed', path)
      t.match(answer.body.errors, [{ path, message: String }])
      t.notMatch(answer.text, password)
      t.notMatch(answer.text, x(100))
    }
  })

  await t.test('login: a missing, empty or malformed body is 422', async t => {
    const missing = await registry.post('/auth/login', { headers: print })
    t.equal(problemOf(t, missing), 'validation-failed')
    for (const raw of ['', '  \n', '{"username": "admin", "password": "secret-in-a-bad-body"', 'NaN']) {
      const answer = await registry.post('/auth/login', { raw, headers: print })
      t.equal(answer.status, 422)
      t.equal(problemOf(t, answer), 'validation-failed')
      t.match(answer.body.errors, [{ path: '', message: String }])
      t.notMatch(answer.text, 'secret-in-a-bad-body')
    }
  })

  await t.test('login: a missing fingerprint is refused before any comparison', async t => {
    for (const headers of [{}, { 'x-client-fingerprint': '' }] as Array<Record<string, string>>) {
      const answer = await login(right, headers)
      t.equal(problemOf(t, answer), 'required-header-missing')
      t.match(answer.body, { status: 400, header: 'X-Client-Fingerprint' })
    }
  })
})

t.test('temporary tokens', async t => {
  const registry = await build(t, patient, answers)
  const good = { agent_id: 'agent-one', agent_type: 'testing', agent_key: keys.plain }
  const ask = (body: unknown) => registry.post('/auth/agent/request_temp_token', { body })

  await t.test('temporary tokens: a key is exchanged for one, whatever the agent type', async t => {
    const bodies = [good, { ...good, agent_id: ' agent-one ' }, { ...good, agent_type: 'unknown' }, {
      ...good,
      agent_id: x(
        100
      ),
      agent_type: x(50)
    }, { ...good, agent_key: keys.exclusive }, { ...good, more: 1 }]
    for (const body of bodies) {
      const answer = await ask(body)
      t.equal(answer.status, 200)
      t.same(Object.keys(answer.body).sort(), ['expires_in', 'message', 'temp_token', 'token_type'])
      t.match(answer.body, { token_type: 'bearer', expires_in: 900, message: /^Temporary token issued/ })
    }
  })

  const refused: Array<[body: object, status: number, type: string, members: object]> = [
    [{ ...good, agent_id: undefined }, 400, 'invalid-input', { field: 'agent credentials' }],
    [{ ...good, agent_type: null }, 400, 'invalid-input', { field: 'agent credentials' }],
    [{ ...good, agent_key: '' }, 400, 'invalid-input', { field: 'agent credentials' }],
    [{}, 400, 'invalid-input', { field: 'agent credentials' }],
    [{ ...good, agent_key: x(9) }, 400, 'invalid-input', { field: 'agent_key' }],
    [{ ...good, agent_key: x(10) }, 401, 'authentication-failed', { detail: 'Authentication failed: Invalid agent registration key' }],
    [{ ...good, agent_key: x(200) }, 401, 'authentication-failed', {}],
    [{ ...good, agent_key: ` ${keys.plain}` }, 401, 'authentication-failed', {}],
    [{ ...good, agent_key: `${keys.plain}x` }, 401, 'authentication-failed', {}],
    [{ ...good, agent_key: x(201) }, 422, 'validation-failed', { errors: [{ path: '/agent_key' }] }],
    [{ ...good, agent_id: x(101) }, 422, 'validation-failed', { errors: [{ path: '/agent_id' }] }]
  ]
  await t.test('temporary tokens: missing, short, wrong and too long credentials are refused', async t => {
    for (const [body, status, type, members] of refused) {
      const answer = await ask(body)
      t.equal(answer.status, status, JSON.stringify(body).slice(0, 80))
      t.equal(problemOf(t, answer), type)
      t.match(answer.body, members)
      t.notMatch(answer.text, keys.plain)
    }
  })
})

t.test('compliance validation: it is always refused with 400, so that existing clients continue', async t => {
  const registry = await build(t, patient, answers)
  const admin = await registry.admin()
  const calls: Array<[name: string, call: Call]> = [
    ['without a token', { body: { agent_id: 'agent-one' } }],
    ['with a temporary token', { token: await registry.tempToken(), body: { agent_id: 'agent-one', metadata: {} } }],
    ['with an access token', { token: await registry.agent() }],
    ['with an admin token', { ...admin, body: {} }],
    ['with an invalid token', { token: 'x' }],
    ['with a malformed body', { raw: '{' }],
    ['with a body that is too large', { raw: JSON.stringify(x(3_000_000)) }],
    ['with a body of another type', { raw: '<a/>', headers: { 'content-type': 'application/xml' } }]
  ]
  for (const [name, call] of calls) {
    await t.test(name, async t => {
      const answer = await registry.post('/auth/agent/validate_compliance', call)
      t.equal(answer.status, 400)
      t.equal(problemOf(t, answer), 'tpr-disabled')
      t.match(answer.body.detail, 'not enabled')
    })
  }
})

const adminCalls: Array<[method: string, path: string]> = [
  ['POST', '/auth/logout'], ['POST', '/auth/set_pin'], ['POST', '/auth/verify_pin'], ['GET', '/auth/pin_status'],
  ['GET', '/auth/session_status'], ['POST', '/tokens/mint'], ['POST', '/tokens/revoke'], ['GET', '/agents/stats']
]

t.test('admin routes', async t => {
  const registry = await build(t, patient, answers)
  const admin = await registry.admin()
  const mint = (role: string) => registry.post('/tokens/mint', { ...admin, body: { user_id: 'somebody', agent_id: 'some-body', role } })
  const tokens = {
    agent: await registry.agent(), temporary: await registry.tempToken(), user: (await mint('user')).body.access_token
  }
  for (const [method, path] of adminCalls) {
    await t.test(`admin routes: ${method} ${path} is refused to other callers`, async t => {
      const none = await registry.call(method, path)
      t.equal(problemOf(t, none), 'authentication-failed')
      t.equal(none.body.detail, 'Authentication required for admin endpoint')
      t.equal(problemOf(t, await registry.call(method, path, { token: 'x.y.z' })), 'token-invalid')
      for (const [role, token] of Object.entries(tokens)) {
        const answer = await registry.call(method, path, { token, headers: print })
        t.equal(problemOf(t, answer), 'insufficient-permissions')
        t.equal(answer.body.detail, `Access denied: ${role} role cannot access admin endpoint`)
      }
      for (const headers of [{}, { 'x-client-fingerprint': '' }, { 'x-client-fingerprint': 'another' }] as Array<Record<string, string>>) {
        const answer = await registry.call(method, path, { token: admin.token, headers })
        t.equal(problemOf(t, answer), 'session-invalid')
        t.equal(answer.body.detail, 'Admin session validation failed')
      }
    })
  }

  await t.test('authentication: the scheme of the header is case-insensitive, and other schemes are ignored', async t => {
    for (const scheme of ['Bearer', 'bearer', 'BEARER']) {
      t.equal((await registry.get('/agents/stats', { headers: { ...print, authorization: `${scheme} ${admin.token}` } })).status, 200)
    }
    for (const authorization of ['DPoP x', 'Bearer', 'Bearer ', 'Bearer a b', admin.token]) {
      t.equal(problemOf(t, await registry.get('/agents/stats', { headers: { ...print, authorization } })), 'authentication-failed')
    }
  })
})

t.test('sessions', async t => {
  const registry = await build(t, { ...patient, admin: { maxSessions: 2 } }, answers)
  const status = async ({ token, headers }: Call) => (await registry.get('/auth/session_status', { token, headers })).status

  await t.test('sessions: a session describes itself', async t => {
    const admin = await registry.admin()
    const { body } = await registry.get('/auth/session_status', admin)
    const seconds = Date.now() / 1000
    t.same({ ...body, expires: 0 }, {
      valid: true, user_id: 'admin', role: 'admin', agent_id: 'user_admin', expires: 0, is_admin: true, session_exists: true, pin_set: false
    })
    t.ok(body.expires > seconds + 1700 && body.expires <= seconds + 1800)
  })

  await t.test('sessions: a logout ends the session with all its tokens, and other sessions stay', async t => {
    const [one, two] = [await registry.admin('one'), await registry.admin('two')]
    const { body: minted } = await registry.post('/tokens/mint', { ...one, body: { user_id: 'us', agent_id: 'some-body', role: 'agent' } })
    t.equal((await registry.get('/agents', { token: minted.access_token })).status, 200)
    const answer = await registry.post('/auth/logout', { ...one, raw: '' })
    t.same([answer.status, answer.body], [200, { status: 'success', message: 'Logged out and session PIN cleared' }])
    for (const token of [one.token, minted.access_token]) {
      t.equal(problemOf(t, await registry.get('/agents', { token, headers: one.headers })), 'session-invalid')
      t.equal(problemOf(t, await registry.post('/tokens/refresh', { token })), 'session-invalid')
      t.match((await registry.post(`/tokens/validate?token=${token}`)).body, { valid: false, error: String })
    }
    t.equal(await status(two), 200)
  })

  await t.test('sessions: the oldest session is evicted at the limit', async t => {
    const sessions = [await registry.admin('a'), await registry.admin('b'), await registry.admin('c')]
    t.same(await Promise.all(sessions.map(status)), [401, 200, 200])
  })
})

t.test('sessions: a session expires without a logout', async t => {
  const registry = await build(t, { ...patient, admin: { sessionTimeoutMs: 2000 } }, answers)
  const admin = await registry.admin()
  t.equal((await registry.get('/auth/pin_status', admin)).status, 200)
  await until(async () => (await registry.get('/auth/pin_status', admin)).status === 401, 10_000)
  t.match(problemOf(t, await registry.get('/auth/pin_status', admin)), /token-invalid|session-invalid/)
})

t.test('login: without a configured password it is refused', async t => {
  const registry = await build(t, { ...patient, admin: { password: undefined } }, answers)
  t.equal(problemOf(
    t, await registry.post('/auth/login', { body: { username: 'admin', password: 'x' }, headers: print })
  ), 'authentication-failed')
})

async function pinCase (registry: Harness) {
  const admin = await registry.admin()
  const set = (pin: unknown) => registry.post('/auth/set_pin', { ...admin, body: { pin } })
  const verify = (pin: unknown) => registry.post('/auth/verify_pin', { ...admin, body: { pin } })
  const withPin = (pin: string) => ({ ...admin, headers: { ...admin.headers, 'x-session-pin': pin } })
  return { admin, set, verify, withPin }
}

const digits = Array.from('0123456789', digit => digit.repeat(4))
const badPins: Json[] = [
  '', 'abc', x(33), 1234, null, undefined, '1234', '12345', '123456', 'password', 'Password', 'admin', ...digits, ' abc '
]

t.test('session PIN', async t => {
  const registry = await build(t, patient, answers)
  const { admin, set, verify, withPin } = await pinCase(registry)

  await t.test('session PIN: it has 4 to 32 characters and is hard to guess', async t => {
    for (const pin of badPins) {
      const answer = await set(pin)
      t.equal(problemOf(t, answer), 'validation-failed', `${pin}`)
      t.match(answer.body.errors, [{ path: '/pin' }])
    }
    t.equal(problemOf(t, await verify('1357')), 'pin-not-set')
    t.same((await registry.get('/auth/pin_status', admin)).body, { pin_set: false })
  })

  await t.test('session PIN: it is set once, and verified', async t => {
    t.same((await set(' 1357 ')).body, { status: 'success', message: 'PIN set for session' })
    t.equal(problemOf(t, await set('2468')), 'pin-already-set')
    t.same((await registry.get('/auth/pin_status', admin)).body, { pin_set: true })
    t.equal((await registry.get('/auth/session_status', admin)).body.pin_set, true)
    t.same((await verify('1357')).body, { status: 'success', message: 'PIN verified' })
    const wrong = await verify('1358')
    t.equal(problemOf(t, wrong), 'pin-incorrect')
    t.equal(wrong.status, 401)
    for (const pin of ['', ' ', x(33)]) t.equal(problemOf(t, await verify(pin)), 'validation-failed')
    t.equal(problemOf(t, await verify(x(32))), 'pin-incorrect')
  })

  await t.test('session PIN: irreversible requests require it', async t => {
    const token = await registry.agent()
    const revoke = (call: Call) => registry.post('/tokens/revoke', { ...call, body: { agent_id: 'agent-two' } })
    const remove = (call: Call) => registry.delete('/agents/agent-one', call)
    for (const run of [remove, revoke]) {
      const missing = await run(admin)
      t.equal(missing.status, 400)
      t.equal(problemOf(t, missing), 'pin-required')
      t.equal(problemOf(t, await run(withPin('0'))), 'pin-incorrect')
    }
    t.equal((await registry.get('/agents/agent-one', { token })).status, 200)
    t.equal((await revoke(withPin('1357'))).status, 200)
    t.equal((await remove(withPin('1357'))).status, 200)
  })

  await t.test('session PIN: agents do not need one, and it ends with the session', async t => {
    const token = await registry.agent('agent-three')
    t.equal((await registry.delete('/agents/agent-three', { token })).status, 200)
    await registry.post('/auth/logout', admin)
    const next = await registry.admin()
    t.same((await registry.get('/auth/pin_status', next)).body, { pin_set: false })
    t.equal((await registry.post('/agents/register', { ...next, body: registration() })).status, 200)
    t.equal((await registry.delete('/agents/agent-one', next)).status, 200)
  })

  await t.test('session PIN: two concurrent requests cannot both set it', async t => {
    const next = await pinCase(registry)
    const statuses = (await Promise.all(['1357', '2468'].map(pin => next.set(pin)))).map(({ status }) => status)
    t.same(statuses.sort(), [200, 400])
  })
})

t.test('guessing', async t => {
  const registry = await build(t, { attempts: { burst: 5, windowMs: 20_000 } }, { ...answers, server: { trustProxy: true } })
  const from = (address: string) => ({ ...print, 'x-forwarded-for': address })
  const login = (address: string, secret = 'wrong') =>
    registry.post('/auth/login', { body: { username: 'admin', password: secret }, headers: from(address) })
  const tryKey = (address: string, key = 'a-wrong-key-1') => registry.post('/auth/agent/request_temp_token', {
    body: { agent_id: 'agent-one', agent_type: 'testing', agent_key: key }, headers: from(address)
  })

  await t.test('guessing: of 200 concurrent passwords only five, and those that the elapsed time adds, are checked', async t => {
    t.equal((await login('192.0.2.1', password)).status, 200)
    const started = Date.now()
    const all = await Promise.all(Array.from({ length: 200 }, () => login('192.0.2.66')))
    const tried = all.filter(({ status }) => status === 401)
    const most = 5 + Math.ceil((Date.now() - started) / 4000)
    t.ok(tried.length >= 5 && tried.length <= most, `${tried.length} of ${most} were checked`)
    const refused = all.filter(({ status }) => status === 429)
    t.equal(tried.length + refused.length, 200)
    const [one] = refused
    t.equal(problemOf(t, one!), 'rate-limit-exceeded')
    t.type(one!.body.retry_after, 'number')
    t.equal(one!.headers.get('retry-after'), String(one!.body.retry_after))
    t.ok(one!.body.retry_after >= 1)
  })

  await t.test('guessing: an address that has logged in before is not locked out', async t => {
    t.equal((await login('192.0.2.1', password)).status, 200)
  })

  await t.test('guessing: the lockout of the guesser is temporary', async t => {
    await t.resolves(until(async () => (await login('192.0.2.66', password)).status === 200, 40_000))
  })

  await t.test('guessing: keys are limited by address, an IPv6 address by network, and other addresses are not affected', async t => {
    const statuses = []
    for (let n = 0; n < 7; n++) statuses.push((await tryKey(`2001:db8::${n + 1}`)).status)
    t.same(statuses.slice(0, 5), [401, 401, 401, 401, 401])
    t.ok(statuses.includes(429))
    t.equal((await tryKey('2001:db8:0:1::1', keys.plain)).status, 200)
    t.equal((await tryKey('192.0.2.2', keys.plain)).status, 200)
  })

  await t.test('guessing: a PIN is limited too', async t => {
    const { token } = await registry.admin()
    const headers = from('192.0.2.9')
    t.equal((await registry.post('/auth/set_pin', { token, headers, body: { pin: '1357' } })).status, 200)
    const guesses = await Promise.all(Array.from({ length: 12 }, () =>
      registry.post('/auth/verify_pin', { token, headers, body: { pin: '9753' } })))
    t.ok(guesses.filter(({ status }) => status === 401).length < 10)
    t.ok(guesses.some(({ status }) => status === 429))
  })
})

t.test('responses: they match their schemas', async t => { t.same(answers.findings, []) })
