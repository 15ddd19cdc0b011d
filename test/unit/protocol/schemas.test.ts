import { type TSchema, Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import fc from 'fast-check'
import t from 'tap'
import { coerce, lowercase, verbatim } from '../../../src/lib/coerce.js'
import type { ProblemError } from '../../../src/errors.js'
import { AgentInfo, AgentRegistration, hideableFields, RegistrationBody } from '../../../src/protocol/schemas/agent.js'
import { Claims, HostPrincipal } from '../../../src/protocol/schemas/claims.js'
import { isJson, isPoisonousKey, isShallow, mergePatch } from '../../../src/lib/json.js'
import { isReservedAgentId, lengthOf, Nullable, Text, textFault } from '../../../src/protocol/schemas/common.js'
import { agentsClientFrames, agentsServerFrames } from '../../../src/protocol/frames/agents.js'
import { publicClientFrames, publicServerFrames } from '../../../src/protocol/frames/public.js'
import { answers, ListQuery, LoginBody, MintBody, Problem, RecordQuery } from '../../../src/protocol/schemas/rest.js'
import { assertValid, checkerOf, fieldErrors, matches } from '../../../src/protocol/validation.js'
import { parseRegistration, poisonousMembers } from '../../../src/registry/registration.js'
import { registration } from '../../support/harness.js'
import { faults, parse, rules } from '../registry/helper.js'
import { seed } from '../../support/lengths.js'

const smile = '😀'

t.test(`schemas: the length of a text counts Unicode code points (TEST_SEED=${seed})`, async t => {
  t.equal(lengthOf(`a${smile}`), 2)
  t.doesNotThrow(() => fc.assert(fc.property(fc.string({ unit: 'binary' }), fc.nat(5), fc.nat(10), (text, minLength, maxLength) => {
    const length = Array.from(text).length
    return (textFault({ minLength, maxLength }, text) === undefined) === (length >= minLength && length <= maxLength)
  }), { numRuns: 1000 }))
})

t.test('schemas: a text is a JSON Schema string, and its pattern is tested after its length', async t => {
  const schema = Text({ minLength: 1, maxLength: 2, pattern: '^a+$', description: 'As' })
  t.strictSame(JSON.parse(JSON.stringify(schema)), { type: 'string', minLength: 1, maxLength: 2, pattern: '^a+$', description: 'As' })
  const message = (value: unknown) => fieldErrors(schema, value)[0]?.message
  t.equal(message('aa'), undefined)
  t.equal(message(''), 'Expected string length greater or equal to 1')
  t.equal(message('bbb'), 'Expected string length less or equal to 2')
  t.equal(message('b'), "Expected string to match '^a+$'")
  t.equal(message(7), 'Expected string')
  t.equal(Value.Check(Text(), smile), true)
})

t.test('schemas: errors are named by path, each path once, at most fifty', async t => {
  const schema = Type.Object({
    choice: Type.Union([Type.Literal('a'), Type.Literal('b')]),
    maybe: Nullable(Type.Object({ deep: Nullable(Text({ maxLength: 1 })) })),
    mixed: Type.Union([Type.String(), Type.Number(), Type.Boolean()])
  })
  t.same(fieldErrors(schema, { choice: 'a', maybe: null, mixed: 1 }), [])
  t.same(fieldErrors(schema, { choice: 'c', maybe: { deep: 'ab' }, mixed: null }), [
    { path: '/choice', message: 'Expected one of a, b' },
    { path: '/maybe/deep', message: 'Expected string length less or equal to 1' },
    { path: '/mixed', message: 'Expected one of string, number, boolean' }
  ])
  t.same(fieldErrors(schema, {}).map(({ path }) => path), ['/choice', '/maybe', '/mixed'])
  t.equal(fieldErrors(Type.Array(Type.Integer()), Array(100).fill('x')).length, 50)
  t.equal(checkerOf(schema), checkerOf(schema))
})

t.test('schemas: valid input passes the assertion, and invalid input is refused with every error', async t => {
  const schema = Type.Object({ a: Type.Integer(), b: Type.Integer() })
  t.doesNotThrow(() => assertValid(schema, { a: 1, b: 2 }))
  try {
    assertValid(schema, { a: 'x' })
    t.fail('not refused')
  } catch (error) {
    t.match(
      error, { type: 'validation-failed', statusCode: 422, message: '/b: Expected required property' } satisfies Partial<ProblemError>
    )
    t.equal(((error as ProblemError).members!.errors as unknown[]).length, 2)
  }
})

t.test('schemas: depth is counted without recursion', async t => {
  const nested = (levels: number) => Array.from({ length: levels }).reduce(inner => ({ inner }), 1)
  for (const levels of [0, 1, 5]) {
    t.equal(isShallow(nested(levels), levels), true)
    t.equal(isShallow(nested(levels + 1), levels), false)
  }
  t.equal(isShallow(nested(1_000_000), 32), false)
  t.equal(isShallow(Array(200_000).fill([1]), 2), true)
})

t.test(`schemas: JSON values survive a round trip unchanged (TEST_SEED=${seed})`, async t => {
  t.doesNotThrow(() => fc.assert(fc.property(fc.jsonValue(), value => isJson(value))))
  for (const value of [NaN, Infinity, 1n, Symbol('s'), () => 1]) {
    t.equal(isJson(value), false)
    t.equal(isJson({ a: [{ b: value }] }), false)
  }
  t.equal(isJson(Array(200_000).fill(1)), true)
})

const readings: Array<[schema: TSchema, given: unknown, read: unknown]> = [
  [Type.String(), ' a ', 'a'],
  [Text(), ' a ', 'a'],
  [Type.String(verbatim), ' a ', ' a '],
  [Type.String(), 7, 7],
  [Type.Integer(), ' 12 ', 12],
  [Type.Integer(), '-1', -1],
  [Type.Number(), '1.5', 1.5],
  [Type.Number(), '1e3', 1000],
  [Type.Number(), '1E-05', 0.00001],
  [Type.Number(), '1e', '1e'],
  [Type.Integer(), '1e3', '1e3'],
  [Type.Number(), '0x10', '0x10'],
  [Type.Number(), '', ''],
  [Type.Number(), 'NaN', 'NaN'],
  [Type.Number(), null, null],
  ...['true', ' TRUE ', '1', 'yes', 'on'].map((text): [TSchema, unknown, unknown] => [Type.Boolean(), text, true]),
  ...['false', '0', 'No', 'off'].map((text): [TSchema, unknown, unknown] => [Type.Boolean(), text, false]),
  [Type.Boolean(), 'maybe', 'maybe'],
  [Type.Boolean(), 1, 1],
  [Type.Array(Type.Integer()), '3', [3]],
  [Type.Array(Type.Integer()), ['3', 'x', 4], [3, 'x', 4]],
  [Type.Array(Type.Integer()), 3, 3],
  [Nullable(Type.Integer()), '3', 3],
  [Nullable(Type.Integer()), null, null],
  [Nullable(Text()), ' a ', 'a'],
  [Type.Union([Type.Literal('a'), Type.Literal('b')], lowercase), ' A ', 'a'],
  [Type.Union([Type.Literal('a'), Type.Literal('b')], lowercase), 7, 7],
  [Type.Union([Type.Literal('a'), Type.Literal('b')]), 'A', 'A'],
  [Type.Object({ a: Type.Integer({ default: 5 }), b: Type.Optional(Type.Boolean()) }), { other: ' x ' }, { a: 5, other: ' x ' }],
  [Type.Object({ a: Type.Integer({ default: 5 }), b: Type.Boolean() }), { a: '6', b: 'yes' }, { a: 6, b: true }],
  [Type.Object({ a: Type.Object({ b: Type.Integer() }) }), { a: { b: '1' } }, { a: { b: 1 } }],
  [Type.Object({ toString: Type.Optional(Type.String()) }), {}, {}],
  [Type.Object({ a: Type.Integer() }), 'text', 'text'],
  [Type.Object({ a: Type.Integer() }), null, null],
  [Type.Object({ a: Type.Integer() }), ['1'], ['1']],
  [Type.Object({}), { a: 1 }, { a: 1 }],
  [Type.Null(), ' a ', ' a '],
  [ListQuery, { limit: '10', include_metrics: 'on', capabilities: 'one' }, { limit: 10, include_metrics: true, capabilities: ['one'] }],
  [RecordQuery, {}, { include_metrics: true }],
  [LoginBody, { username: ' admin ', password: ' secret ' }, { username: 'admin', password: ' secret ' }],
  [MintBody, { user_id: 'u1', agent_id: 'a12', role: 'ADMIN' }, { user_id: 'u1', agent_id: 'a12', scopes: [], role: 'admin' }]
]

t.test('schemas: text input is coerced, and input that does not fit is left to the schema', async t => {
  for (const [schema, given, read] of readings) {
    const before = structuredClone(given)
    t.strictSame(coerce(schema, given), read, `${schema.type ?? 'choice'} of ${JSON.stringify(given)}`)
    t.strictSame(given, before, 'and the input stays unchanged')
  }
})

t.test('schemas: a coerced object has no foreign prototype', async t => {
  const read = coerce(Type.Object({ a: Type.Integer() }), JSON.parse('{"__proto__":{"b":1},"a":"1"}')) as { a: number }
  t.equal(Object.getPrototypeOf(read), Object.prototype)
  t.equal(read.a, 1)
  t.notOk('b' in read)
})

t.test('schemas: names that hide a path or change an object are reserved', async t => {
  for (const id of ['register', 'search', 'stats', 'ws', 'report-metrics', 'changes', 'events', '__proto__', 'constructor', 'prototype']) {
    t.ok(isReservedAgentId(id), id)
  }
  for (const id of ['Register', 'agent-one', 'hasOwnProperty', 'toString']) t.notOk(isReservedAgentId(id), id)
  t.same(['__proto__', 'constructor', 'prototype', 'toString', 'register'].map(isPoisonousKey), [true, true, true, false, false])
})

t.test('schemas: a registration body may omit members that a stored registration always has', async t => {
  t.equal(checkerOf(RegistrationBody).Check(registration()), true)
  t.equal(checkerOf(RegistrationBody).Check(registration('agent-one', { features: null, requirements: { permissions: [] } })), true)
  t.equal(checkerOf(AgentRegistration).Check(registration()), false)
  for (const field of hideableFields) t.ok(field in AgentInfo.properties, field)
})

t.test('schemas: claims of registry tokens are distinguished from other values', async t => {
  const claims = { iss: 'i', aud: 'a', sub: 's', jti: 'j', typ: 'agent', role: 'agent', iat: 1, exp: 2 }
  t.equal(matches(Claims, claims), true)
  for (const more of [{ typ: 'ticket' }, { role: 'root' }, { sub: '' }, { exp: '2' }, { exp: 1.5 }, { iat: -1 }, { inc: 'x' }, {
    scopes: [
      1
    ]
  }, { typ: undefined }]) t.equal(matches(Claims, { ...claims, ...more }), false, JSON.stringify(more))
  const principal = {
    type: 'user',
    role: 'user',
    subject: 's',
    agentId: null,
    incarnation: null,
    tokenId: 't',
    sessionId: null,
    expiresAt: null,
    scopes: [],
    keyDigest: null
  }
  t.equal(matches(HostPrincipal, principal), true)
  for (const more of [{ type: 'root' }, { subject: '' }, { scopes: null }, { expiresAt: NaN }, { agentId: 7 }]) {
    t.equal(matches(HostPrincipal, { ...principal, ...more }), false, JSON.stringify(more))
  }
})

const texts = (schema: unknown): TSchema[] => {
  if (typeof schema !== 'object' || schema === null) return []
  const own = 'pattern' in schema || 'maxLength' in schema ? [schema as unknown as TSchema] : []
  return [...own, ...Object.values(schema).flatMap(texts)]
}

t.test('schemas: each compiles, is plain JSON Schema, and answers are documented', async t => {
  const all: TSchema[] = [...Object.values(
    publicClientFrames
  ), ...Object.values(agentsClientFrames), ...publicServerFrames, ...agentsServerFrames, AgentInfo, RegistrationBody, Problem]
  for (const schema of all) {
    t.doesNotThrow(() => checkerOf(schema))
    t.ok(texts(JSON.parse(JSON.stringify(schema))).every(({ type }) => type === 'string'))
  }
  t.same(Object.keys(answers(Problem)), ['200', '4xx', '5xx'])
})

const rows: Array<[field: keyof AgentRegistration, given: unknown, kept: unknown]> = [
  ['name', '  Two words ', 'Two words'],
  ['agent_id', '\tagent-one\n', 'agent-one'],
  ['agent_type', ' TESTING ', 'TESTING'],
  ['endpoint', ' http://127.0.0.1:9 ', 'http://127.0.0.1:9'],
  ['version', ' 1.0.0 ', '1.0.0'],
  ['capabilities', [' one ', '', '  ', 'two', 'two'], ['one', 'two', 'two']],
  ['metadata', { a: ' kept ', b: [' ', null] }, { a: ' kept ', b: [' ', null] }],
  ['communication_mode', ' REMOTE ', 'remote'],
  ['features', null, []],
  ['features', undefined, []],
  ['features', [' a ', '', 'b'.repeat(100), 'b'.repeat(101), '😀'.repeat(100)], ['a', 'b'.repeat(100), '😀'.repeat(100)]],
  ['max_tokens', ' 12 ', 12],
  ['max_tokens', '12.0', 12],
  ['max_tokens', '', null],
  ['max_tokens', undefined, null],
  ['rate_limit', '10', 10],
  ['language_support', [' EN ', 'x', 'zh-TW', 'toolong', 'de'], ['en', 'zh-tw', 'de']],
  ['language_support', ['x', 'toolong'], null],
  ['language_support', [], null],
  ['language_support', undefined, null],
  ['policy_tags', [' a ', 'b'.repeat(51), ''], ['a']],
  ['policy_tags', null, []],
  ['ai_context', '   ', null],
  ['ai_context', ' how ', 'how'],
  ['requirements', null, null],
  ['requirements', '  ', null]
]

t.test('normalisation: values are corrected where possible', async t => {
  for (const [field, given, kept] of rows) {
    t.same(parse({ [field]: given }).registration[field], kept, `${field} of ${JSON.stringify(given)}`)
  }
})

const noRequirements = {
  system_requirements: [],
  permissions: [],
  dependencies: [],
  minimum_system_version: null,
  minimum_memory_mb: null,
  minimum_disk_space_mb: null,
  requires_internet: true,
  network_ports: [],
  required_fields: [],
  optional_fields: [],
  user_configuration: {},
  schema_version: '1.0'
}

t.test('normalisation: requirements always have all twelve members', async t => {
  const kept = (requirements: unknown) => parse({ requirements }).registration.requirements
  t.strictSame(kept({}), noRequirements)
  t.strictSame(kept('{"unknown":1,"requires_internet":"no","minimum_memory_mb":"512"}'), {
    ...noRequirements, requires_internet: false, minimum_memory_mb: 512
  })
  t.strictSame(kept({ permissions: [' a ', 'b'.repeat(101), ''], network_ports: [' 80 ', ''], schema_version: ' 2.0 ' }), {
    ...noRequirements, permissions: ['a'], network_ports: ['80'], schema_version: '2.0'
  })
  t.strictSame(kept({ required_fields: [{ name: 'a', label: 'b', type: 'text', unknown: 1 }] })!.required_fields, [
    { name: 'a', label: 'b', type: 'text' }
  ])
})

t.test('normalisation: unknown members are dropped, and the order of members is fixed', async t => {
  const { body, registration: kept } = parseRegistration({
    unknown: 1,
    toString: 1,
    ...Object.fromEntries(Object.entries(registration())
      .reverse())
  }, rules)
  t.strictSame(Object.keys(JSON.parse(body)), Object.keys(AgentRegistration.properties))
  t.strictSame(JSON.parse(body), kept)
})

t.test('normalisation: inherited members are ignored', async t => {
  t.ok(faults(Object.create(registration())).includes('/name'))
})

t.test(`normalisation: a normalised value is unchanged by a second pass (TEST_SEED=${seed})`, async t => {
  const text = fc.string({ unit: 'grapheme', minLength: 2, maxLength: 40 })
  const input = fc.record({
    name: text,
    owner: text,
    capabilities: fc.array(fc.oneof(text, fc.constant(' ab ')), { maxLength: 5 }),
    features: fc.option(fc.array(text, { maxLength: 5 })),
    language_support: fc.option(fc.array(text)),
    metadata: fc.dictionary(text, fc.oneof(text, fc.double(), fc.boolean()), { minKeys: 1, maxKeys: 5 }),
    max_tokens: fc.oneof(fc.integer(), fc.integer().map(String), fc.constant(null)),
    requirements: fc.oneof(fc.constant(null), fc.record({ permissions: fc.array(text), minimum_memory_mb: fc.integer().map(String) }))
  })
  let right = 0
  t.doesNotThrow(() => fc.assert(fc.property(input, more => {
    if (faults(registration('agent-one', more)).length > 0) return true
    right++
    const once = parse(more)
    return parseRegistration(JSON.parse(once.body), rules).body === once.body
  }), { numRuns: 500 }))
  t.ok(right > 0)
})

t.test(`normalisation: random input yields a registration or a list of errors (TEST_SEED=${seed})`, async t => {
  const input = fc.record(Object.fromEntries(Object.keys(AgentRegistration.properties)
    .map(name => [name, fc.anything({ withBigInt: true, withNullPrototype: true, withDate: true })])), { requiredKeys: [] })
  t.doesNotThrow(() => fc.assert(fc.property(input, more => Array.isArray(faults({ ...registration(), ...more }))), { numRuns: 500 }))
  t.doesNotThrow(() => fc.assert(fc.property(fc.anything(), value => faults(value).length > 0)))
})

const examples: Array<[target: unknown, patch: unknown, result: unknown]> = [
  [{ a: 'b' }, { a: 'c' }, { a: 'c' }],
  [{ a: 'b' }, { b: 'c' }, { a: 'b', b: 'c' }],
  [{ a: 'b' }, { a: null }, {}],
  [{ a: 'b', b: 'c' }, { a: null }, { b: 'c' }],
  [{ a: ['b'] }, { a: 'c' }, { a: 'c' }],
  [{ a: 'c' }, { a: ['b'] }, { a: ['b'] }],
  [{ a: { b: 'c' } }, { a: { b: 'd', c: null } }, { a: { b: 'd' } }],
  [{ a: [{ b: 'c' }] }, { a: [1] }, { a: [1] }],
  [['a', 'b'], ['c', 'd'], ['c', 'd']],
  [{ a: 'b' }, ['c'], ['c']],
  [{ a: 'foo' }, null, null],
  [{ a: 'foo' }, 'bar', 'bar'],
  [{ e: null }, { a: 1 }, { e: null, a: 1 }],
  [[1, 2], { a: 'b', c: null }, { a: 'b' }],
  [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }]
]

t.test('merge patch: the examples of RFC 7396 hold', async t => {
  for (const [target, patch, result] of examples) {
    const before = structuredClone(target)
    t.strictSame(mergePatch(target, patch), result, JSON.stringify(patch))
    t.strictSame(target, before, 'and its target stays unchanged')
  }
})

t.test('merge patch: names that change the prototype are found at every depth', async t => {
  t.same([
    ...poisonousMembers(JSON.parse('{"a":1,"__proto__":{"x":1},"b":{"constructor":null,"c":{"prototype":1}},"d":["constructor"]}'))
  ], ['/__proto__', '/b/constructor', '/b/c/prototype'])
  t.same([...poisonousMembers('constructor')], [])
  mergePatch({}, JSON.parse('{"__proto__":{"polluted":1}}'))
  t.notOk('polluted' in {})
})
