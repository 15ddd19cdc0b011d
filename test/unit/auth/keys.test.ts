import t from 'tap'
import { KeyRing, keyRingSecret } from '../../../src/auth/keys.js'

const secret = keyRingSecret('a secret of at least 32 characters')
const use = { agentId: 'agent-one', agentType: 'testing', capabilities: ['read', 'write'] }

t.test('every configured key is found, at its full length', async t => {
  const long = 'k'.repeat(199)
  const keys = Array.from({ length: 20 }, (_, n) => `agent-key-${n}`)
  const ring = new KeyRing([...keys, `${long}1`, { key: `${long}2`, exclusive: true, ids: ['agent-one'], maxAgents: 3 }], secret)
  t.equal(ring.size, 22)
  for (const key of keys) t.match(ring.find(key), { exclusive: false })
  t.match(ring.find(`${long}2`), { exclusive: true, ids: ['agent-one'], maxAgents: 3 })
  t.equal(ring.find(long), undefined)
  t.equal(ring.find(`${keys[0]}x`), undefined)
  t.equal(ring.find(''), undefined)
})

t.test('only digests are kept, the same for the same secret', async t => {
  const ring = new KeyRing(['agent-key-1'], secret)
  const found = ring.find('agent-key-1')!
  t.notMatch(JSON.stringify(found), 'agent-key-1')
  t.equal(ring.byDigest(found.digest), found)
  t.equal(ring.byDigest('agent-key-1'), undefined)
  t.equal(new KeyRing(['agent-key-1'], keyRingSecret('a secret of at least 32 characters')).find('agent-key-1')?.digest, found.digest)
  t.not(new KeyRing(['agent-key-1'], keyRingSecret('another secret of 32 characters!')).find('agent-key-1')?.digest, found.digest)
})

t.test('a key that is configured twice stops the start, without being named', async t => {
  const build = () => new KeyRing(['agent-key-1', { key: 'agent-key-1', exclusive: true }], secret)
  t.throws(build, { code: 'AGENT_REGISTRY_INVALID_OPTIONS', message: 'Invalid options: agentKeys.1: this key is configured twice' })
})

t.test('a key may be limited to ids, types and capabilities', async t => {
  const ring = new KeyRing([], secret)
  const key = (limits: { ids?: string[], types?: string[], capabilities?: string[] }) => ({ digest: 'd', exclusive: false, ...limits })
  const passing = [{}, { ids: ['other', 'agent-one'] }, { ids: ['agent-*'] }, { ids: ['*'] }, { types: ['TESTING'] }, { capabilities: ['write', 'read', 'more'] }]
  for (const limits of passing) t.equal(ring.denialReason(key(limits), use), undefined, JSON.stringify(limits))
  t.match(ring.denialReason(key({ ids: ['agent', 'agent-one-more', 'agent-1*'] }), use), /agent_id 'agent-one'/)
  t.match(ring.denialReason(key({ types: ['test'] }), use), /agent_type 'testing'/)
  t.match(ring.denialReason(key({ capabilities: ['read'] }), use), /capability 'write'/)
  t.match(ring.denialReason(key({ capabilities: [] }), use), /capability 'read'/)
})
