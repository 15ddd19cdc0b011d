import t from 'tap'
import fc from 'fast-check'
import { mergePatch } from '../../../src/lib/json.js'
import { poisonousMembers } from '../../../src/registry/registration.js'
import { AgentRegistration } from '../../../src/protocol/schemas/agent.js'
import { registration } from '../../support/harness.js'
import { faults, parse, rules } from './helper.js'
import { parseRegistration } from '../../../src/registry/registration.js'

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

t.test('what is given is made right where it can be', async t => {
  for (const [field, given, kept] of rows) t.same(parse({ [field]: given }).registration[field], kept, `${field} of ${JSON.stringify(given)}`)
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

t.test('requirements always have all twelve members', async t => {
  const kept = (requirements: unknown) => parse({ requirements }).registration.requirements
  t.strictSame(kept({}), noRequirements)
  t.strictSame(kept('{"unknown":1,"requires_internet":"no","minimum_memory_mb":"512"}'), { ...noRequirements, requires_internet: false, minimum_memory_mb: 512 })
  t.strictSame(kept({ permissions: [' a ', 'b'.repeat(101), ''], network_ports: [' 80 ', ''], schema_version: ' 2.0 ' }), { ...noRequirements, permissions: ['a'], network_ports: ['80'], schema_version: '2.0' })
  t.strictSame(kept({ required_fields: [{ name: 'a', label: 'b', type: 'text', unknown: 1 }] })!.required_fields, [{ name: 'a', label: 'b', type: 'text' }])
})

t.test('unknown members are left out, and the order of members is always the same', async t => {
  const { body, registration: kept } = parseRegistration({ unknown: 1, toString: 1, ...Object.fromEntries(Object.entries(registration()).reverse()) }, rules)
  t.strictSame(Object.keys(JSON.parse(body)), Object.keys(AgentRegistration.properties))
  t.strictSame(JSON.parse(body), kept)
})

t.test('members that an input inherits are not its own', async t => {
  t.ok(faults(Object.create(registration())).includes('/name'))
})

t.test('what was made right once stays as it is', async t => {
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

t.test('a random input is a registration or has a list of faults, never anything else', async t => {
  const input = fc.record(Object.fromEntries(Object.keys(AgentRegistration.properties).map(name => [name, fc.anything({ withBigInt: true, withNullPrototype: true, withDate: true })])), { requiredKeys: [] })
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

t.test('a merge patch does what the examples of RFC 7396 say', async t => {
  for (const [target, patch, result] of examples) {
    const before = structuredClone(target)
    t.strictSame(mergePatch(target, patch), result, JSON.stringify(patch))
    t.strictSame(target, before, 'and leaves its target alone')
  }
})

t.test('names that change the shape of an object are found at every depth of a patch', async t => {
  t.same([...poisonousMembers(JSON.parse('{"a":1,"__proto__":{"x":1},"b":{"constructor":null,"c":{"prototype":1}},"d":["constructor"]}'))], ['/__proto__', '/b/constructor', '/b/c/prototype'])
  t.same([...poisonousMembers('constructor')], [])
  mergePatch({}, JSON.parse('{"__proto__":{"polluted":1}}'))
  t.notOk('polluted' in {})
})
