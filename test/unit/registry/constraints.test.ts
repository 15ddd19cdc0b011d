import t from 'tap'
import { registration } from '../../support/harness.js'
import { faults, faultsOf, parse } from './helper.js'

const times = (count: number, item: unknown = 'item') => Array.from({ length: count }, () => item)
const members = (count: number, value: unknown = 1) =>
  Object.fromEntries(Array.from({ length: count }, (_, index) => [`key${index}`, value]))
const smile = '😀'

/** Values on both sides of each bound: valid ones, and invalid ones (with the path, if it is not that of the field). */
type Row = [field: string, right: unknown[], wrong: Array<unknown | { at: string, value: unknown }>]
const at = (path: string, value: unknown) => ({ at: path, value })

const missing = undefined

const rows: Row[] = [
  ['agent_id', ['abc', 'a'.repeat(100), 'A-b_9', ' abc '], [
    'ab', 'a'.repeat(101), 'a b', 'a.b', 'ä-bc', '', 7, null, missing, `ab${smile}`, 'register', 'search', 'stats', 'report-metrics',
    'changes', 'events', '__proto__', 'constructor', 'prototype', 'abc\nabc', '../up', 'ws'
  ]],
  ['name', ['ab', 'a'.repeat(32), '<b>', smile.repeat(
    2
  ), smile.repeat(32), `  ${'a'.repeat(32)}  `], ['a', ' a ', 'a'.repeat(33), smile, smile.repeat(33), '', 7, null, missing, ['ab']]],
  ['agent_type', ['testing', 'TESTING', 'security', ' testing '], ['other', 'a', 'a'.repeat(
    51
  ), 'test ing', '__proto__', 'constructor', '', 7, null, missing]],
  ['endpoint', ['http://ab', 'https://user:pass@host:1/x?y#z', 'http://127.0.0.1:9', `http://ab/${'a'.repeat(2038)}`, ' http://ab '],
    ['http://a', 'ftp://ab', 'HTTP://ab', 'http:// ab', 'http://ab c', 'http:///ab', 'http://.ab', 'http://?ab', `http://ab/${'a'.repeat(
      2039
    )}`, 'javascript:alert(1)', '', 7, null, missing]],
  ['context_brief', ['a'.repeat(10), 'a'.repeat(1000), smile.repeat(
    10
  ), smile.repeat(1000)], ['a'.repeat(9), ` ${'a'.repeat(9)} `, 'a'.repeat(1001), smile.repeat(9), smile.repeat(1001), 7, null, missing]],
  ['capabilities', [['ab'], ['a'.repeat(100)], ['a b', 'a-b', 'a_b', '12'], times(50, 'ab'), ['ab', '', ' '], ['ab', 'ab']],
    [
      [], ['', ' '], times(51, 'ab'), 'ab', {}, null, missing, at('/capabilities/0', ['a']), at('/capabilities/0', ['a'.repeat(101)]),
      at('/capabilities/0', ['a.b']), at('/capabilities/0', ['a/b']), at('/capabilities/0', ['a:b']), at('/capabilities/0', [7]),
      at('/capabilities/0', [null]), at('/capabilities/constructor', ['constructor']), at('/capabilities/__proto__', ['ab', '__proto__']),
      at('/capabilities/prototype', ['prototype'])
    ]],
  ['owner', ['ab', 'a'.repeat(50), smile.repeat(50)], ['a', smile, 'a'.repeat(51), smile.repeat(51), 7, null, missing]],
  ['public_key', ['a'.repeat(32), 'a'.repeat(1024), `-----BEGIN KEY-----\n${'a+/=_'.repeat(6)}\r\n-----END KEY-----`], ['a'.repeat(
    31
  ), 'a'.repeat(1025), `${'a'.repeat(32)}@`, `${'a'.repeat(32)}:`, `${'a'.repeat(32)}.`, 7, null, missing]],
  ['metadata', [members(1), members(50), { k: 'a'.repeat(1000) }, { k: smile.repeat(1000) }, { k: '' }, { k: 1.5 }, {
    k: false
  }, { k: [] }, { k: [{ deep: [null] }] }, { ['k'.repeat(100)]: 1 }, { [smile.repeat(100)]: 1 }, { 'a b\nc': 1 }, { hasOwnProperty: 1 }],
  [{}, members(51), [], 'text', 7, null, missing, at('/metadata/k', { k: 'a'.repeat(1001) }), at(
    '/metadata/k', { k: smile.repeat(1001) }
  ), at('/metadata/k', { k: null }), at('/metadata/k', { k: {} }), at('/metadata/k', { k: NaN }), at('/metadata/k', { k: Infinity }),
  at(`/metadata/${'k'.repeat(101)}`, { ['k'.repeat(101)]: 1 }), at(`/metadata/${smile.repeat(101)}`, { [smile.repeat(101)]: 1 }),
  at('/metadata/', { '': 1 }), at('/metadata/constructor', { constructor: 1 }), at('/metadata/prototype', { prototype: 1 }),
  at('/metadata/__proto__', JSON.parse('{"__proto__":1}'))]],
  ['version', [
    '0.0.0', '10.20.30', '1.2.3-rc1', ' 1.0.0 '
  ], ['1.0', '1.0.0.0', '1.0.0+build', '1.0.0-rc.1', 'v1.0.0', '1.0.0-', '', 1, null, missing]],
  ['communication_mode', ['remote', 'local', 'hybrid', ' HyBrid '], ['other', '', 7, null, missing]],
  ['features', [missing, null, [], times(
    100, 'f'
  ), ['a'.repeat(100)], ['a'.repeat(101)], ['', ' ']], [times(101, 'f'), 'text', {}, at('/features/0', [7])]],
  ['max_tokens', [
    missing, null, 1, 1_000_000, '5', ' 5 ', ''
  ], [0, -1, 1_000_001, 1.5, '1.5', 'many', NaN, Infinity, 'Infinity', 'NaN', true, [1], {}]],
  ['language_support', [missing, null, [], times(
    20, 'en'
  ), ['zh-tw'], ['e', 'zh-hant']], [times(21, 'en'), 'en', {}, at('/language_support/0', [7])]],
  ['rate_limit', [missing, null, 1, 10_000, '10000'], [0, 10_001, 0.5, '0', 'x', -Infinity, false]],
  ['requirements', [missing, null, {}, '', ' ', '{}', '{"minimum_memory_mb":1}', { unknown: 1 }], ['text', '[]', '7', [], 7, true]],
  ['policy_tags', [missing, null, [], times(20, 'p'), ['a'.repeat(51)]], [times(21, 'p'), 'text', at('/policy_tags/0', [{}])]],
  ['ai_context', [missing, null, '', 'a'.repeat(5000), smile.repeat(5000)], ['a'.repeat(5001), smile.repeat(5001), 7, {}]]
]

for (const [field, right, wrong] of rows) {
  t.test(`registration: valid and invalid values of ${field}`, async t => {
    for (const value of right) t.same(faultsOf({ [field]: value }), [], `${field} ${show(value)} is valid`)
    for (const entry of wrong) {
      const [path, value] = isAt(entry) ? [entry.at, entry.value] : [`/${field}`, entry]
      t.same(faultsOf({ [field]: value }), [path], `${field} ${show(value)} is invalid`)
    }
  })
}

function isAt (value: unknown): value is { at: string, value: unknown } {
  return typeof value === 'object' && value !== null && 'at' in value && 'value' in value
}

function show (value: unknown) {
  const text = typeof value === 'string' ? value : JSON.stringify(value) ?? String(value)
  return text.length > 40 ? `${text.slice(0, 40)}… (${text.length})` : text
}

const field = (more: object) => ({ name: 'a', label: 'b', type: 'text', ...more })

const configRows: Row[] = [
  ['name', ['a', 'a'.repeat(100), 'A-z_0'], ['', 'a'.repeat(101), 'a b', 7, missing]],
  ['label', ['a', 'a'.repeat(200), smile.repeat(200)], ['', 'a'.repeat(201), 7, missing]],
  ['type', ['text', 'select', 'multiselect', 'boolean', 'number', 'textarea', 'array'], ['TEXT', 'other', missing, 7]],
  ['description', [missing, null, 'a'.repeat(1000)], ['a'.repeat(1001), 7]],
  ['default_value', [missing, null, 'a', 1, true, [], ['a']], [1.5, {}, [1]]],
  ['options', [missing, null, [], times(50, 'a'), ['a'.repeat(200)]], [times(51, 'a'), 'a', at('/options/0', ['a'.repeat(201)])]],
  ['validation', [missing, null, '^a+$', 'a'.repeat(500)], ['(', '[', 'a'.repeat(501), 7]],
  ['placeholder', [missing, null, 'a'.repeat(300)], ['a'.repeat(301), 7]]
]

const requirementRows: Row[] = [
  ['system_requirements', [missing, null, [], times(50), ['a'.repeat(200)], ['a'.repeat(201), '']], [times(51), 'text', at(
    '/system_requirements/0', [7]
  )]],
  ['permissions', [times(30), ['a'.repeat(100)], ['a'.repeat(101)]], [times(31), {}]],
  ['dependencies', [times(100), ['a'.repeat(201)]], [times(101), 7]],
  ['minimum_system_version', [missing, null, '', '1', '1.2.3', '1.2.3-beta+x', `1.${'2'.repeat(
    48
  )}`], ['v1', '1.2.', '1..2', `1.${'2'.repeat(49)}`, 7, {}]],
  ['minimum_memory_mb', [missing, null, 1, 1_048_576, '512'], [0, 1_048_577, 1.5, 'much', NaN, true]],
  ['minimum_disk_space_mb', [missing, null, 1, 10_485_760, '512'], [0, 10_485_761, 1.5, Infinity]],
  ['requires_internet', [missing, null, true, false, 'yes', ' NO ', '1', 'off'], ['maybe', 7, []]],
  ['network_ports', [missing, null, [], ['1'], ['65535'], ['1-65535'], [' 80 '], times(20, '80'), ['']],
    [
      times(21, '80'), '80', at('/network_ports/0', ['0']), at('/network_ports/0', ['65536']), at('/network_ports/1', ['80', '1-65536']),
      at('/network_ports/0', ['0-80']), at('/network_ports/0', ['http']), at('/network_ports/0', ['80-']), at('/network_ports/0', ['-80']),
      at('/network_ports/0', ['1-2-3']), at('/network_ports/0', [80])
    ]],
  ['required_fields', [missing, null, [], times(50, field({}))], [times(51, field({})), {}, 'text', at('/required_fields/0', [7])]],
  ['optional_fields', [missing, null, [], times(
    100, field({ category: 'a'.repeat(100) })
  ), [field({ category: null })]], [times(101, field({})), at('/optional_fields/0/category', [field({ category: 'a'.repeat(101) })])]],
  ['user_configuration', [missing, null, {}, members(100), { a: { b: [null] } }], [members(101), [], 'text', 7, at(
    '/user_configuration/constructor', { constructor: 1 }
  ), at('/user_configuration/__proto__', JSON.parse('{"__proto__":1}'))]],
  ['schema_version', [missing, null, '1.0', '12.34', ' 2.0 '], ['1', '1.0.0', 'v1.0', 1, '']]
]

for (const [name, right, wrong] of requirementRows) {
  t.test(`registration: valid and invalid values of requirements.${name}`, async t => {
    for (const value of right) t.same(faultsOf({ requirements: { [name]: value } }), [], `${show(value)} is valid`)
    for (const entry of wrong) {
      const [path, value] = isAt(entry) ? [entry.at, entry.value] : [`/${name}`, entry]
      t.same(faultsOf({ requirements: { [name]: value } }), [`/requirements${path}`], `${show(value)} is invalid`)
    }
  })
}

for (const kind of ['required_fields', 'optional_fields']) {
  for (const [name, right, wrong] of configRows) {
    t.test(`registration: valid and invalid values of ${name} in ${kind}`, async t => {
      for (const value of right) t.same(faultsOf({ requirements: { [kind]: [field({ [name]: value })] } }), [], `${show(value)} is valid`)
      for (const entry of wrong) {
        const [path, value] = isAt(entry) ? [entry.at, entry.value] : [`/${name}`, entry]
        t.same(faultsOf({ requirements: { [kind]: [field({ [name]: value })] } }), [`/requirements/${kind}/0${path}`],
          `${show(value)} is invalid`)
      }
    })
  }
}

t.test('registration: dropping blank items does not make a list valid', async t => {
  t.ok(faultsOf({ features: [...times(100, 'f'), ''] }).includes('/features'))
  t.ok(faultsOf({ policy_tags: [...times(20, 'f'), ' '] }).includes('/policy_tags'))
  t.ok(faultsOf({ language_support: [...times(20, 'en'), 'too long'] }).includes('/language_support'))
})

t.test('registration: a value that is not an object is refused', async t => {
  for (const input of [undefined, null, 'text', 7, true, [], [registration()]]) t.same(faults(input), [''])
})

t.test('registration: each invalid field has its own error', async t => {
  t.same(faultsOf({ name: 'a', owner: 'b', version: 'x', max_tokens: 0 }).sort(), ['/max_tokens', '/name', '/owner', '/version'])
  t.equal(faults({}).length, 11)
})

t.test('registration: messages state the expected value', async t => {
  const message = (more: object) => {
    try {
      return parse(more).body
    } catch (error) {
      return (error as Error).message
    }
  }
  t.equal(message({ name: smile }), '/name: Expected string length greater or equal to 2')
  t.equal(message({ name: 'a'.repeat(33) }), '/name: Expected string length less or equal to 32')
  t.equal(message({ max_tokens: 0 }), '/max_tokens: Expected integer to be greater or equal to 1')
  t.equal(message({ communication_mode: 'x' }), '/communication_mode: Expected one of remote, local, hybrid')
  t.equal(message({ metadata: { k: null } }), '/metadata/k: Expected one of string, number, boolean, array')
  t.equal(message({ agent_type: 'other' }), '/agent_type: Expected one of testing, Security')
  t.match(message({ version: 'x' }), /^\/version: Expected string to match/)
})

t.test('registration: allowed types are an option, and * allows all', async t => {
  t.same(faultsOf({ agent_type: 'anything' }, { allowedAgentTypes: ['*'] }), [])
  t.same(faultsOf({ agent_type: 'constructor' }, { allowedAgentTypes: ['*'] }), ['/agent_type'])
  t.same(faultsOf({ agent_type: 'testing' }, { allowedAgentTypes: [] }), ['/agent_type'])
})

t.test('registration: it is nested at most 32 levels deep, whatever its source', async t => {
  const nested = (levels: number) => JSON.parse('['.repeat(levels) + ']'.repeat(levels))
  t.same(faultsOf({ metadata: { k: nested(30) } }), [])
  t.same(faultsOf({ metadata: { k: nested(32) } }), [''])
  t.same(faultsOf({ metadata: { k: nested(5000) } }), [''])
  t.same(faultsOf({ requirements: `{"user_configuration":{"a":${'['.repeat(5000)}${']'.repeat(5000)}}}` }), [''])
  const loop: unknown[] = []
  loop.push(loop)
  t.same(faultsOf({ metadata: { k: loop } }), [''])
})

t.test('registration: numbers in arrays must be finite, and non-JSON values are not stored', async t => {
  for (const item of [NaN, Infinity, -Infinity, 1n, () => 1, Symbol('s')]) t.same(faultsOf({ metadata: { k: [[item]] } }), [''])
  t.same(faultsOf({ requirements: '{"user_configuration":{"a":1e999}}' }), [''])
  t.same(faultsOf({ metadata: { k: [1, 'a', null, true, undefined, { a: 1 }] } }), [])
})

t.test('registration: a record has a maximum size in bytes of JSON', async t => {
  const size = Buffer.byteLength(parse({ ai_context: 'ä' }).body)
  t.same(faultsOf({ ai_context: 'ä' }, { maxRecordBytes: size }), [])
  t.same(faultsOf({ ai_context: 'ä' }, { maxRecordBytes: size - 1 }), [''])
  t.same(faultsOf({ ai_context: 'ää' }, { maxRecordBytes: size + 1 }), [''])
})

t.test('registration: a text of the size of a body does not block the process', async t => {
  const long = `${'1'.repeat(1_000_000)}!`
  const start = performance.now()
  t.same(faultsOf({ requirements: { minimum_system_version: long } }), ['/requirements/minimum_system_version'])
  for (const name of ['agent_id', 'name', 'version', 'endpoint', 'public_key', 'context_brief', 'max_tokens', 'ai_context']) {
    t.same(faultsOf({ [name]: long }), [`/${name}`])
  }
  t.same(faultsOf({ metadata: { [smile.repeat(100_000)]: 1 } }).length, 1)
  t.ok(performance.now() - start < 5000)
})
