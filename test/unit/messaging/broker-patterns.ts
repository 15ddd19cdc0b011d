import fc from 'fast-check'
import type { Case } from './broker-scene.js'

/** What a pattern means, said as simply as can be. */
function naivelyMatches (pattern: string, channel: string): boolean {
  const [wanted, given] = [pattern.split('/'), channel.split('/')]
  const hasRest = wanted.at(-1) === '**'
  if (hasRest ? given.length < wanted.length : given.length !== wanted.length) return false
  return wanted.every((segment, index) => segment === '*' || segment === given[index] || (hasRest && index === wanted.length - 1))
}

const segment = fc.constantFrom('a', 'b', '', 'a*', '[ab]', '?', '\\', '^', 'ü"')
const patternText = fc.array(fc.oneof(segment, fc.constant('*')), { minLength: 0, maxLength: 3 }).chain(segments => fc.constantFrom(...['a', '*', '**'].map(last => [...segments, last].join('/'))))
const channelText = fc.array(segment, { minLength: 1, maxLength: 4 }).map(segments => segments.join('/'))

export const patterns: Case[] = [
  ['entries of every channel that matches are told, once', async (t, { side, broker }) => {
    for (const pattern of ['a/**', 'a/*', '*/b']) await broker.followPattern(pattern)
    await broker.followPattern('a/*')
    await broker.follow('c:a/b')
    for (const name of ['c:a/b', 'c:a', 'c:a/b/c', 'c:b/b', 'c:b', 'i:a/b', 'c:b/a']) await side.sayAll(name, ['1', '2'])
    await side.waits(() => side.heard('c:b/b').length === 2)
    t.same(side.told.map(({ log, offset }) => `${log} ${offset}`), ['c:a/b', 'c:a/b/c', 'c:b/b'].flatMap(log => [`${log} 1`, `${log} 2`]))
    t.same(side.losses, [])
  }],
  ['a pattern that is not followed any more tells nothing', async (t, { side, broker }) => {
    for (const pattern of ['a/*', 'b/**', '**']) await broker.followPattern(pattern)
    for (const pattern of ['a/*', '**', 'never', '**']) broker.unfollowPattern(pattern)
    await broker.follow('c:a/1')
    broker.unfollow('c:a/1')
    for (const name of ['c:a/1', 'c:b/1']) await side.say(name, '1')
    await side.hears('c:b/1', 1)
    t.equal(side.told.length, 1)
    broker.unfollowPattern('b/**')
    await broker.follow('c:a/1')
    for (const name of ['c:b/1', 'c:a/1']) await side.say(name, '2')
    t.same([await side.hears('c:a/1', 1), side.told.length], [['2'], 2])
  }],
  ['a channel that a pattern had let in stays followed, and the other way round', async (t, { side, broker }) => {
    await broker.followPattern('a/*')
    await side.say('c:a/1', '1')
    await side.hears('c:a/1', 1)
    t.match(await broker.follow('c:a/1'), { offset: 1 })
    broker.unfollowPattern('a/*')
    await side.say('c:a/1', '2')
    await side.hears('c:a/1', 2)
    await broker.followPattern('a/*')
    broker.unfollow('c:a/1')
    await side.say('c:a/1', '3')
    t.same([await side.hears('c:a/1', 3), side.losses], [['1', '2', '3'], []])
  }],
  ['what nothing let in is not told later', async (t, { side, broker }) => {
    await broker.followPattern('a/*')
    await side.say('c:a/1', '1')
    await side.hears('c:a/1', 1)
    broker.unfollowPattern('a/*')
    await side.sayAll('c:a/1', ['2', '3'])
    await Promise.all([broker.followPattern('*/1'), broker.followPattern('*/1')])
    await side.say('c:a/1', '4')
    await side.hears('c:a/1', 2)
    await broker.followPattern('a/**')
    broker.unfollowPattern('*/1')
    await side.say('c:a/1', '5')
    t.same([await side.hears('c:a/1', 3), side.losses], [['1', '4', '5'], []])
  }],
  ['patterns match as a naive matcher does', async (t, { side, broker }) => {
    let round = 0
    await t.resolves(fc.assert(fc.asyncProperty(fc.uniqueArray(patternText, { maxLength: 4 }), fc.uniqueArray(channelText, { minLength: 1, maxLength: 6 }), async (wanted, channels) => {
      const end = `i:end-${round++}`
      await Promise.all([broker.follow(end), ...wanted.map(pattern => broker.followPattern(pattern))])
      side.told.length = 0
      await Promise.all(channels.map(channel => side.say(`c:${channel}`, 'x')))
      await side.say(end, 'x')
      await side.hears(end, 1)
      const told = side.told.filter(({ log }) => log !== end).map(({ log }) => log).sort()
      const expected = channels.filter(channel => wanted.some(pattern => naivelyMatches(pattern, channel))).map(channel => `c:${channel}`).sort()
      broker.unfollow(end)
      for (const pattern of wanted) broker.unfollowPattern(pattern)
      if (told.join('\n') !== expected.join('\n')) throw new Error(`told ${JSON.stringify(told)}, expected ${JSON.stringify(expected)}`)
    }), { numRuns: 60 }))
  }]
]
