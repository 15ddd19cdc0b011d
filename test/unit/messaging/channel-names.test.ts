import fc from 'fast-check'
import t from 'tap'
import { isProblem } from '../../../src/errors.js'
import { channelNamed, isPattern, patternNamed, shownName } from '../../../src/protocol/channel-names.js'

const invalid = 'invalid-channel'
const reserved = 'channel-reserved'

/** The type of the problem that a name is refused with. */
function refusalOf (go: () => string): string | undefined {
  try {
    go()
  } catch (error) {
    return isProblem(error) ? error.type : String(error)
  }
}

const show = (name: string) => JSON.stringify(name).slice(0, 80)

t.test('a channel of agents is segments of a small alphabet', async t => {
  for (const name of ['a', 'a/b', 'workflows/run-1/subtasks', 'A.b:c@d_e-f/0', 'user-ann/inbox', 'a'.repeat(256)]) {
    t.equal(channelNamed(name, 'agents'), name)
    t.equal(shownName(name, 'agents'), name)
    t.equal(shownName(name, 'v1'), name)
  }
})

t.test('what is no name is refused, in both dialects', async t => {
  for (const name of ['', 'a\nb', 'a\u0000', '\u007f', 'a\u0085', 'x'.repeat(257), '__proto__', 'a/constructor', 'prototype/b']) {
    t.equal(refusalOf(() => channelNamed(name, 'agents')), invalid, show(name))
    t.equal(refusalOf(() => channelNamed(name, 'v1')), invalid, show(name))
  }
})

t.test('what is outside the alphabet of agents has one way to be written there', async t => {
  for (const text of ['a b', 'ü', 'a//b', '/a', 'a/', '/', '*', 'a/*', '%', '%2', '%zz', '%61', '%c3%bc', 'a%2fb', '%C3', '%ED%A0%80%ED%B0%80', 'a/%0A', 'a%2Fb', '\ud800']) {
    t.equal(refusalOf(() => channelNamed(text, 'agents')), invalid, show(text))
  }
  const written: Array<[text: string, name: string]> = [
    ['my%20room', 'my room'], ['%C3%BC', 'ü'], ['a%2F%2Fb', 'a//b'], ['%2Fa', '/a'], ['a%2F', 'a/'], ['%2F', '/'], ['a/%2A', 'a/*'],
    ['%F0%9F%9A%80', '🚀'], ['%ED%A0%80', '\ud800'], ['x%ED%BF%BFy', 'x\udfffy'], ['%25', '%']
  ]
  for (const [text, name] of written) {
    t.equal(channelNamed(text, 'agents'), name, text)
    t.equal(shownName(name, 'agents'), text, text)
    t.equal(shownName(name, 'v1'), name)
  }
})

t.test('reserved names are refused', async t => {
  for (const name of ['$agents', '$', '$dead/a', '_', '_x/y', '_metered/x']) t.equal(refusalOf(() => channelNamed(name, 'agents')), reserved, name)
  for (const name of ['$agents', '$', '_metered/x', '_internal/', '_system/x']) t.equal(refusalOf(() => channelNamed(name, 'v1')), reserved, name)
  for (const name of ['_', '_x/y', '_metered', 'a/$b', '*', 'a/**', ' ']) t.equal(channelNamed(name, 'v1'), name)
  t.equal(refusalOf(() => channelNamed(`%5F${'x'}`, 'agents')), invalid)
  t.equal(shownName('$agents', 'agents'), '$agents')
})

t.test('every name of /v1 is written by agents in a way of its own', async t => {
  const name = fc.string({ unit: fc.oneof(fc.constantFrom('a', '/', '%', '*', ' ', '$', '_', '\ud800', '\udc00', '🚀'), fc.string({ unit: 'binary', minLength: 1, maxLength: 1 })), minLength: 1, maxLength: 20 })
  t.doesNotThrow(() => fc.assert(fc.property(name, name => {
    try {
      channelNamed(name, 'v1')
    } catch {
      return true
    }
    const text = shownName(name, 'agents')
    if (/^_/.test(name)) return text.startsWith('_')
    return /^[A-Za-z0-9_.:@%/-]+$/.test(text) && channelNamed(text, 'agents') === name
  }), { numRuns: 5000 }))
})

t.test('a pattern has stars for whole segments', async t => {
  for (const text of ['*', '**', 'a/*', 'a/**', '*/b/**', 'my%20room/*']) {
    t.equal(isPattern(text, 'agents'), true)
    t.equal(isPattern(text, 'v1'), false)
  }
  t.equal(patternNamed('my%20room/*'), 'my room/*')
  t.equal(patternNamed('a/*/**'), 'a/*/**')
  for (const text of ['a*', '**/a', 'a//*', '/*', 'a/***', '%2A/*', 'a%2Fb/*', 'a b/*', `${'x/'.repeat(128)}*`, '__proto__x y/*', 'constructor/*']) t.equal(refusalOf(() => patternNamed(text)), invalid, text)
  for (const text of ['$agents/*', '_x/**']) t.equal(refusalOf(() => patternNamed(text)), reserved, text)
})
