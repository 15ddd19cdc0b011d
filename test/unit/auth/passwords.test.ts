import t from 'tap'
import { PasswordHasher } from '../../../src/auth/passwords.js'
import { cheapCost, cheapHasher, refusal } from './helper.js'

t.test('a hash fits its password only, and two of the same differ', async t => {
  const hasher = cheapHasher()
  const [first, second] = await Promise.all([hasher.hashPassword('pässword'), hasher.hashPassword('pässword')])
  t.not(first, second)
  t.notMatch(first, 'pässword')
  t.equal(await hasher.verifyPassword('pässword', first), true)
  t.equal(await hasher.verifyPassword('pa\u0308ssword', first), true, 'however the letter was typed')
  t.equal(await hasher.verifyPassword('password', first), false)
})

t.test('a hash of other work factors still fits', async t => {
  const hash = await new PasswordHasher({ cost: { N: 16, r: 2, p: 2 } }).hashPassword('secret')
  t.equal(await cheapHasher().verifyPassword('secret', hash), true)
})

t.test('the default work factors fit into memory limits', async t => {
  const hasher = new PasswordHasher()
  const hash = await hasher.hashPassword('secret')
  t.match(hash, /^scrypt\$32768\$8\$3\$/)
  t.equal(await hasher.verifyPassword('secret', hash), true)
})

t.test('without a hash the answer is no, after the same work', async t => {
  const hasher = new PasswordHasher({ cost: cheapCost, concurrency: 1, queue: 0 })
  const busy = hasher.verifyPassword('anything', null)
  t.match(await refusal(() => hasher.verifyPassword('anything', null)), { type: 'rate-limit-exceeded' }, 'it takes a place like any other')
  t.equal(await busy, false)
})

t.test('what is no hash is an error', async t => {
  await t.rejects(cheapHasher().verifyPassword('x', 'plain text'), TypeError)
})

t.test('two run at once, some wait, the others are refused', async t => {
  const hasher = new PasswordHasher({ cost: cheapCost, queue: 3 })
  const tries = Array.from({ length: 8 }, () => hasher.hashPassword('secret'))
  const settled = await Promise.allSettled(tries)
  t.same(settled.map(({ status }) => status), [...Array(5).fill('fulfilled'), ...Array(3).fill('rejected')])
  t.match(await refusal(() => tries[7]), { type: 'rate-limit-exceeded', status: 429 })
  t.ok(await hasher.hashPassword('secret'), 'and places are free again')
})
