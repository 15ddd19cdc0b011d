import t from 'tap'
import { perMillisecondCache } from '../../../src/registry/query.js'

t.test('a text is made again when something has changed, or a millisecond later', async t => {
  const replica = { version: 1 }
  let made = 0
  const text = perMillisecondCache(replica, () => `text ${++made} of ${replica.version}`)
  const start = Date.now()
  const first = text()
  // Only while the clock stands still can it be the same.
  const again = text()
  if (Date.now() === start) t.equal(again, first)
  replica.version = 2
  t.match(text(), 'of 2')
  const before = made
  const last = Date.now()
  while (Date.now() === last) { /* the next millisecond */ }
  text()
  t.equal(made, before + 1)
})
