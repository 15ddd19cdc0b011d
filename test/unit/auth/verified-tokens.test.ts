import t from 'tap'
import { VerifiedTokens } from '../../../src/auth/tokens.js'
import type { Principal } from '../../../src/protocol/principal.js'

const bearer = (subject: string): Principal => ({
  type: 'user', role: 'user', subject, agentId: null, incarnation: null, tokenId: subject, sessionId: null, expiresAt: 1, scopes: [], keyDigest: null
})

t.test('the newest tokens are remembered, and no more than twice the limit', async t => {
  const tokens = new VerifiedTokens(2)
  for (const name of ['a', 'b', 'c', 'd', 'e']) tokens.set(name, bearer(name))
  t.same([tokens.get('a'), tokens.get('b')], [undefined, undefined])
  t.match([tokens.get('d'), tokens.get('e')], [{ subject: 'd' }, { subject: 'e' }])
  tokens.delete('d')
  tokens.delete('e')
  t.same([tokens.get('d'), tokens.get('e')], [undefined, undefined])
})

t.test('a token that is asked for again and again stays', async t => {
  const tokens = new VerifiedTokens(2)
  tokens.set('kept', bearer('kept'))
  for (let index = 0; index < 20; index++) {
    tokens.set(`other-${index}`, bearer('other'))
    t.match(tokens.get('kept'), { subject: 'kept' })
  }
})
