import { request } from 'node:http'
import { Value } from '@sinclair/typebox/value'
import t from 'tap'
import { AgentInfo, optionalFields } from '../../../src/protocol/schemas/agent.js'
import { answerChecker, build, type Json, problemOf, registration } from '../../support/harness.js'
const answers = answerChecker()
const x = (length: number) => 'x'.repeat(length)
const many = (length: number, item: unknown = 'item') => Array(length).fill(item)
const metadataOf = (count: number, value: unknown = 'v') =>
  Object.fromEntries(Array.from({ length: count }, (_, index) => [`k${index}`, value]))
const validField = { name: 'f-1', label: 'A label', type: 'text' }
const requires = (more: object) => ({ requirements: more })

/** Accepted values of a registration member; a pair is the sent and the stored value. */
const taken: Array<[member: string, values: unknown[]]> = [
  ['name', ['ab', x(32), '<b>"&\'</b>', '  trimmed  ']],
  ['agent_type', ['testing', 'TESTING', 'Monitoring', ' security ']],
  ['endpoint', ['http://ab', 'https://user:secret@host.example:8443/path?query#x', `http://${x(
    2041
  )}`, 'http://169.254.169.254/', 'http://[::1]:80/']],
  ['context_brief', [x(10), x(1000), ` ${x(10)} `]],
  ['capabilities', [['ab'], [x(100)], many(50, 'cap-1_2 3'), ['a b', ' ', ''], ['ab', 'ab'], [' ab ']]],
  ['owner', ['ab', x(50)]],
  ['public_key', [x(32), x(1024), '-----BEGIN KEY-----\nabc+/=_ abcdefgh\r\n-----END KEY-----']],
  ['metadata', [metadataOf(1), metadataOf(50), { [x(100)]: 'v' }, { a: x(1000), b: 1.5, c: true, d: [1, null, { e: [] }] }]],
  ['version', ['0.0.0', '10.20.30', '1.0.0-rc1']],
  ['communication_mode', ['remote', 'local', 'hybrid', ' REMOTE ']],
  ['features', [null, [], many(100), [x(100), x(101), ' ']]],
  ['max_tokens', [null, 1, 1_000_000, '5']],
  ['language_support', [null, [], many(20, 'en'), ['EN', 'x', 'abcdef', 'en-GB']]],
  ['rate_limit', [null, 1, 10_000, '7']],
  ['policy_tags', [null, [], many(20), [x(50), x(51)]]],
  ['ai_context', [null, '', '   ', x(5000)]],
  ['requirements', [
    null, {}, '', '{"minimum_memory_mb": 5}', { unknown: 1 },
    { system_requirements: many(50), permissions: many(30), dependencies: many(100) },
    { minimum_system_version: '1.2.3-rc+1', minimum_memory_mb: 1, minimum_disk_space_mb: 10_485_760, requires_internet: 'false' },
    { minimum_memory_mb: 1_048_576, minimum_disk_space_mb: 1, network_ports: many(20, '1-65535'), schema_version: '2.0' },
    {
      required_fields: many(
        50, validField
      ),
      optional_fields: many(100, { ...validField, category: x(100) }),
      user_configuration: metadataOf(100)
    },
    {
      required_fields: [{
        ...validField,
        name: x(100),
        label: x(200),
        description: x(1000),
        default_value: [
          'a'
        ],
        options: many(50, x(200)),
        validation: '^a+$',
        placeholder: x(300)
      }]
    }
  ]]
]

const refused: Array<[member: string, values: unknown[], path?: string]> = [
  ['agent_id', [
    undefined, null, 7, 'ab', x(101), 'a b', 'a.b', 'ä-ö', 'a/b', '__proto__', 'constructor', 'prototype', 'register', 'search', 'stats',
    'report-metrics', 'changes', 'events', '<b>'
  ]],
  ['name', [undefined, null, 'a', ' a ', x(33), 5]],
  ['agent_type', [undefined, 'x', x(51), 'unknown', 'a.b', '__proto__', 'constructor']],
  ['endpoint', [undefined, 'ftp://host', 'http://', 'http://a', 'http:// ab', 'javascript:alert(1)', `http://${x(2042)}`, 'host']],
  ['context_brief', [undefined, x(9), ` ${x(9)} `, x(1001)]],
  ['capabilities', [undefined, null, [], [' '], many(51), 'cap']],
  ['capabilities', [['a'], [x(101)], ['a.b'], ['a/b'], ['a:b'], [5], [null]], '/capabilities/0'],
  ['capabilities', [['constructor']], '/capabilities/constructor'],
  ['owner', [undefined, 'a', x(51)]],
  ['public_key', [undefined, x(31), x(1025), `${x(40)} user@host`, `${x(40)}:`, `${x(40)}.`]],
  ['metadata', [undefined, null, {}, [], 'text', metadataOf(51)]],
  ['metadata', [{ k0: null }, { k0: {} }, { k0: x(1001) }], '/metadata/k0'],
  ['metadata', [{ constructor: 'x' }], '/metadata/constructor'],
  ['version', [undefined, '1', '1.0', '1.0.0-rc.1', '1.0.0+build', 'v1.0.0', 1]],
  ['communication_mode', [undefined, 'none', '', 5]],
  ['features', ['text', many(101)]],
  ['max_tokens', [0, 1_000_001, 1.5, 'many', true]],
  ['language_support', ['en', many(21, 'en')]],
  ['rate_limit', [0, 10_001, -1]],
  ['policy_tags', [many(21)]],
  ['ai_context', [x(5001), 5]],
  ['requirements', ['no json', 7, [1]]]
]

const refusedRequirements: Array<[more: object, path: string]> = [
  [{ system_requirements: many(51) }, 'system_requirements'], [{ permissions: many(31) }, 'permissions'],
  [{ dependencies: many(101) }, 'dependencies'],
  [{ minimum_system_version: 'v1' }, 'minimum_system_version'], [{ minimum_system_version: `1${x(50)}` }, 'minimum_system_version'],
  [{ minimum_memory_mb: 0 }, 'minimum_memory_mb'], [{ minimum_memory_mb: 1_048_577 }, 'minimum_memory_mb'],
  [{ minimum_disk_space_mb: 0 }, 'minimum_disk_space_mb'], [{ minimum_disk_space_mb: 10_485_761 }, 'minimum_disk_space_mb'],
  [{ requires_internet: 'perhaps' }, 'requires_internet'], [{ network_ports: many(21, '80') }, 'network_ports'],
  [{ network_ports: ['80', '0'] }, 'network_ports/1'], [{ network_ports: ['65536'] }, 'network_ports/0'],
  [{ network_ports: ['1-x'] }, 'network_ports/0'],
  [{ required_fields: many(51, validField) }, 'required_fields'], [{ optional_fields: many(101, validField) }, 'optional_fields'],
  [{ required_fields: [{ ...validField, name: 'a b' }] }, 'required_fields/0/name'],
  [{ required_fields: [{ ...validField, type: 'file' }] }, 'required_fields/0/type'],
  [{ required_fields: [{ ...validField, label: x(201) }] }, 'required_fields/0/label'],
  [{ required_fields: [{ ...validField, validation: '(' }] }, 'required_fields/0/validation'],
  [{ optional_fields: [{ ...validField, category: x(101) }] }, 'optional_fields/0/category'],
  [{ user_configuration: metadataOf(101) }, 'user_configuration'], [{ schema_version: '1' }, 'schema_version']
]

t.test('registration', async t => {
  const registry = await build(t, { addresses: { blocked: [] } }, answers)
  const admin = await registry.admin()
  const register = (more: object) => registry.post('/agents/register', { ...admin, body: registration('agent-one', more) })
  const stored = async (): Promise<Json> => (await registry.get('/agents/agent-one', admin)).body

  for (const [member, values] of taken) {
    await t.test(`registration: ${member} accepts these values`, async t => {
      for (const value of values) {
        const { status, text } = await register({ [member]: value })
        t.equal(status, 200, text)
        t.same([...Value.Errors(AgentInfo, await stored())], [])
      }
    })
  }

  for (const [member, values, path = `/${member}`] of refused) {
    await t.test(`registration: ${path} refuses these values`, async t => {
      for (const value of values) {
        const answer = await register({ [member]: value })
        t.equal(problemOf(t, answer), 'validation-failed', JSON.stringify(value)?.slice(0, 80))
        t.same(answer.body.errors.map((error: { path: string }) => error.path), [path], answer.text.slice(0, 300))
      }
    })
  }

  await t.test('registration: requirements refuse these values', async t => {
    for (const [more, path] of refusedRequirements) {
      const answer = await register(requires(more))
      t.equal(problemOf(t, answer), 'validation-failed', path)
      t.match(answer.body.errors, [{ path: `/requirements/${path}` }])
    }
  })

  await t.test('registration: it is stored trimmed and completed, and returned with every member', async t => {
    const left = Object.fromEntries(optionalFields.map(name => [name, undefined]))
    await register({ ...left, name: ' Agent ', agent_type: 'TESTING', communication_mode: ' Local', unknown: 1 })
    t.match(await stored(), {
      name: 'Agent',
      agent_type: 'TESTING',
      communication_mode: 'local',
      features: [],
      max_tokens: null,
      language_support: null,
      rate_limit: null,
      requirements: null,
      policy_tags: [],
      ai_context: null,
      status: 'alive',
      similarity: null,
      metrics: { agent_id: 'agent-one', success_rate: 0 }
    })
    t.notOk('unknown' in await stored())
    await register({
      capabilities: [' a b ', '', 'cap'], language_support: ['EN', 'x'], ai_context: ' hints ', features: [x(101), ' f '], max_tokens: '5'
    })
    t.match(await stored(), { capabilities: ['a b', 'cap'], language_support: ['en'], ai_context: 'hints', features: ['f'], max_tokens: 5 })
    await register({ requirements: '{"permissions": ["net"]}' })
    t.match((await stored()).requirements, {
      permissions: ['net'], requires_internet: true, schema_version: '1.0', minimum_memory_mb: null, network_ports: []
    })
    t.equal(Object.keys((await stored()).requirements).length, 12)
  })

  await t.test('registration: every wrong member is named, numbers as numbers, without echoing the input', async t => {
    const answer = await registry.post('/agents/register', { ...admin, body: { agent_id: 'submitted!', name: 'x', version: 'submitted' } })
    t.equal(problemOf(t, answer), 'validation-failed')
    const paths = answer.body.errors.map((error: { path: string }) => error.path).sort()
    t.same(paths, [
      '/agent_id', '/agent_type', '/capabilities', '/communication_mode', '/context_brief', '/endpoint', '/metadata', '/name', '/owner',
      '/public_key', '/version'
    ])
    t.type(answer.body.status, 'number')
    t.notMatch(answer.text, 'submitted')
  })

  await t.test('registration: a body that is missing or not an object is 422, and only with a valid token', async t => {
    for (const body of [[], 'text', 7, null, true]) {
      t.equal(problemOf(t, await registry.post('/agents/register', { ...admin, body })), 'validation-failed')
    }
    t.equal(problemOf(t, await registry.post('/agents/register', admin)), 'validation-failed')
    for (const raw of ['', '{', '{"a":NaN}', '{"agent_id":"a"} x', '\u0000']) {
      t.equal(problemOf(t, await registry.post('/agents/register', { ...admin, raw })), 'validation-failed')
    }
    t.equal(problemOf(t, await registry.post('/agents/register', { body: {} })), 'authentication-failed')
    t.equal(problemOf(t, await registry.post('/agents/register', { raw: '{' })), 'validation-failed',
      'JSON is parsed before the token check')
  })

  await t.test('registration: it cannot change a prototype', async t => {
    const text = JSON.stringify(registration())
    for (const poison of [
      '"__proto__":{"polluted":1}', '"constructor":{"prototype":{"polluted":1}}', '"metadata":{"__proto__":{"polluted":"1"}}',
      '"metadata":{"a":"b","constructor":"x"}'
    ]) {
      const answer = await registry.post('/agents/register', { ...admin, raw: `${text.slice(0, -1)},${poison}}` })
      t.equal(problemOf(t, answer), 'validation-failed', poison)
    }
    const inside = await register({ requirements: '{"__proto__":{"polluted":1},"user_configuration":{"__proto__":{"polluted":1}}}' })
    t.equal(problemOf(t, inside), 'validation-failed')
    t.notOk('polluted' in {})
  })

  await t.test('registration: deep nesting is refused at any place', async t => {
    const deep = (depth: number, open = '[', close = ']') => open.repeat(depth) + close.repeat(depth)
    const raws = [
      deep(100_000), `{"a":${deep(100_000)}}`, JSON.stringify(registration()).replace('{"a":"b"}', `{"a":${deep(40)}}`),
      JSON.stringify(registration('agent-one', { requirements: `{"user_configuration":{"a":${deep(100_000)}}}` }))
    ]
    for (const raw of raws) t.equal(problemOf(t, await registry.post('/agents/register', { ...admin, raw })), 'validation-failed')
    const objects = `{"metadata":${'{"a":'.repeat(50_000)}1${'}'.repeat(50_000)}}`
    t.equal(problemOf(t, await registry.patch('/agents/agent-one', { ...admin, raw: objects })), 'validation-failed')
  })

  await t.test('registration: a record over the size limit is refused', async t => {
    const answer = await register({ metadata: { a: many(5000, x(30)) } })
    t.equal(problemOf(t, answer), 'validation-failed')
    t.match(answer.body.errors, [{ path: '', message: /larger than 131072 bytes/ }])
  })
})

t.test('registration: any agent type can be allowed', async t => {
  const registry = await build(t, { allowedAgentTypes: ['*'] }, answers)
  const { token, headers } = await registry.admin()
  const register = (type: string) =>
    registry.post('/agents/register', { token, headers, body: registration('agent-one', { agent_type: type }) })
  t.equal((await register('anything_at-all')).status, 200)
  t.same((await registry.get('/public/stats')).body.available_types, ['anything_at-all'])
  t.equal(problemOf(t, await register('constructor')), 'validation-failed')
})

/** Sends a chunked body without a length. @returns status and text of the response */
function chunked (url: string, chunks: number, headers: Record<string, string>): Promise<{ status: number, text: string }> {
  return new Promise((resolve, reject) => {
    const sending = request(url, { method: 'POST', headers: { 'content-type': 'application/json', ...headers } }, async response => {
      let text = ''
      for await (const chunk of response) text += chunk
      resolve({ status: response.statusCode!, text })
    })
    sending.on('error', reject)
    for (let n = 0; n < chunks; n++) sending.write(x(16_384))
    sending.end()
  })
}

t.test('body limit', async t => {
  const registry = await build(t, { limits: { maxBodyBytes: 20_000 } }, answers)
  const token = await registry.tempToken()
  const size = JSON.stringify(registration('agent-one', { padding: '' })).length

  await t.test('body limit: a body too large by its length is 413', async t => {
    const answer = await registry.post('/agents/register', { token, body: registration('agent-one', { padding: x(20_001 - size) }) })
    t.equal(answer.status, 413)
    t.equal(problemOf(t, answer), 'request-too-large')
    t.match(answer.body, { content_length: 20_001, max_size: 20_000 })
    t.equal((await registry.post('/auth/agent/request_temp_token', { raw: JSON.stringify(x(10_000_000)) })).status, 413)
  })

  await t.test('body limit: a chunked body that is too large is 413', async t => {
    const { status, text } = await chunked(`${registry.base}/agents/register`, 2, { authorization: `Bearer ${token}` })
    t.equal(status, 413)
    t.match(JSON.parse(text), { type: /request-too-large$/, status: 413, max_size: 20_000 })
  })

  await t.test('body limit: a body at the limit is accepted, by length and in chunks', async t => {
    const answer = await registry.post('/agents/register', { token, body: registration('agent-one', { padding: x(20_000 - size) }) })
    t.equal(answer.status, 200)
    t.equal((await chunked(`${registry.base}/agents/register`, 1, {})).status, 422)
  })
})

t.test('responses: they match their schemas', async t => { t.same(answers.findings, []) })
