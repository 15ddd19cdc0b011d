import t from 'tap'
import { VersionedCache } from '../../../src/registry/query.js'

t.test('a text is made once for as long as nothing has changed', async t => {
  const replica = { version: 1 }
  const pages = new VersionedCache(replica, 2)
  let made = 0
  const make = () => `text ${++made}`
  t.equal(pages.get('a', make), 'text 1')
  t.equal(pages.get('a', make), 'text 1')
  t.equal(pages.get('b', make), 'text 2')
  t.equal(pages.get('c', make), 'text 3', 'more than are kept are made each time')
  t.equal(pages.get('c', make), 'text 4')
  replica.version++
  t.equal(pages.get('a', make), 'text 5')
  t.equal(pages.get('c', make), 'text 6', 'what is of no use any more makes room')
  t.equal(pages.get('c', make), 'text 6')
})
