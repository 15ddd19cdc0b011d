import { membersOf, numbers } from './broker-side.js'
import { odd, place, type Case } from './broker-scene.js'

export const presence: Case[] = [
  ['who enters is there, with metadata that can be replaced, until they leave', async (t, { side, broker }) => {
    t.same((await broker.watch(place)).members, [])
    await broker.enter(place, 'a', '{"n":1}')
    await broker.enter(place, 'b', '{"n":"☃\\n"}')
    await broker.enter(place, 'a', '{"n":2}')
    await broker.enter(place, 'a', '{"n":2}')
    await broker.enter('$agents', 'c', '{}')
    t.same(await side.there(place), ['a {"n":2}', 'b {"n":"☃\\n"}'])
    await broker.leave(place, 'a')
    await broker.leave(place, 'a')
    await broker.leave('c:never', 'a')
    await broker.leave(place, 'b')
    t.same(await side.seesMoves(place, 6), ['+a', '+b', '=a', '=a', '-a', '-b'])
    t.same(side.changes.map(({ process, metadata }) => [process === broker.process, metadata]), ['{"n":1}', '{"n":"☃\\n"}', '{"n":2}', '{"n":2}', '{"n":2}', '{"n":"☃\\n"}'].map(metadata => [true, metadata]))
    t.same([await side.there(place), await side.there('$agents')], [[], ['c {}']])
  }],
  ['revisions grow, and a roster is older than all that follows', async (t, { side, broker }) => {
    const { revision } = await broker.watch(place)
    for (const peer of ['a', 'b']) await broker.enter(place, peer, '{}')
    const between = await broker.roster(place)
    t.same(membersOf(between), ['a {}', 'b {}'])
    await broker.leave(place, 'a')
    await side.seesMoves(place, 3)
    const revisions = [revision, ...side.changes.slice(0, 2).map(change => change.revision), side.changes[2]!.revision]
    t.same(revisions, [...new Set(revisions)].sort((a, b) => a - b))
    t.ok(between.revision >= revisions[2]! && between.revision < revisions[3]!)
    t.ok(Number.isSafeInteger(revisions[3]))
  }],
  ['only what is watched is told, until it is not', async (t, { side, broker }) => {
    await broker.enter(place, 'a', '{}')
    t.same(membersOf(await broker.watch(place)), ['a {}'])
    await broker.watch(place)
    await broker.enter(place, 'b', '{}')
    await side.seesMoves(place, 1)
    broker.unwatch(place)
    broker.unwatch('c:never')
    await broker.enter(place, 'c', '{}')
    t.same(membersOf(await broker.watch(place)), ['a {}', 'b {}', 'c {}'])
    await broker.leave(place, 'a')
    t.same(await side.seesMoves(place, 2), ['+b', '-a'])
  }],
  ['changes of one tick are told in the order of the calls', async (t, { side, broker }) => {
    await broker.watch(place)
    const peers = numbers(700)
    await Promise.all([...peers.map(peer => broker.enter(place, peer, '{}')), broker.leave(place, '0'), broker.enter(place, '0', '{}'), broker.leave(place, '1')])
    t.same(await side.seesMoves(place, 703), [...peers.map(peer => `+${peer}`), '-0', '+0', '-1'])
    t.equal((await side.there(place)).length, 699)
  }],
  ['peers and places with whatever names do not know each other', async (t, { broker, side }) => {
    await Promise.all(odd.map(name => broker.watch(name)))
    await Promise.all(odd.flatMap(name => odd.map(peer => broker.enter(name, peer, JSON.stringify([name, peer])))))
    for (const name of odd) {
      const { members } = await broker.roster(name)
      t.same(members.map(({ peerId }) => peerId).sort(), [...odd].sort(), JSON.stringify(name))
      for (const { peerId, metadata } of members) if (metadata !== JSON.stringify([name, peerId])) t.fail(`${metadata} is of another`)
    }
    await side.waits(() => side.changes.length >= odd.length ** 2)
    t.same(side.changes.map(({ place, peerId }) => JSON.stringify([place, peerId])), odd.flatMap(name => odd.map(peer => JSON.stringify([name, peer]))))
  }]
]
