import t from 'tap'
import { VerifiedTokens } from '../../src/auth/verified-tokens.js'
import type { Principal } from '../../src/auth/principal.js'

const bearer = (subject: string): Principal => ({
  type: 'user', role: 'user', subject, agentId: null, incarnation: null, tokenId: subject, sessionId: null, expiresAt: 1, scopes: [], keyDigest: null
})

t.test('the newest tokens are remembered, and no more than the limit', async t => {
  const tokens = new VerifiedTokens(2)
  for (const name of ['a', 'b', 'c']) tokens.set(name, bearer(name))
  t.equal(tokens.get('a'), undefined)
  t.match([tokens.get('b'), tokens.get('c')], [{ subject: 'b' }, { subject: 'c' }])
  tokens.delete('b')
  t.equal(tokens.get('b'), undefined)
})
