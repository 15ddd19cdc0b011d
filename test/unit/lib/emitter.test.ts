import t from 'tap'
import { Emitter } from '../../../src/lib/emitter.js'

interface Events { opened: [name: string], closed: [name: string, code: number] }

t.test('emitter: listeners are called in the order in which they subscribed', async t => {
  const emitter = new Emitter<Events>()
  const calls: unknown[] = []
  emitter.on('closed', (name, code) => calls.push(['first', name, code]))
  emitter.on('closed', (name, code) => calls.push(['second', name, code]))
  emitter.emit('closed', 'a', 1000)
  emitter.emit('opened', 'b')
  t.same(calls, [['first', 'a', 1000], ['second', 'a', 1000]])
})

t.test('emitter: an unsubscribed listener is not called again', async t => {
  const emitter = new Emitter<Events>()
  const calls: string[] = []
  const unsubscribe = emitter.on('opened', name => calls.push(name))
  t.ok(emitter.has('opened'))
  emitter.emit('opened', 'a')
  unsubscribe()
  unsubscribe()
  emitter.emit('opened', 'b')
  t.same(calls, ['a'])
  t.notOk(emitter.has('opened'))
})

t.test('emitter: a listener that subscribes or unsubscribes others does not affect the running event', async t => {
  const emitter = new Emitter<Events>()
  const calls: string[] = []
  emitter.on('opened', () => {
    removeSecond()
    emitter.on('opened', () => calls.push('added'))
  })
  const removeSecond = emitter.on('opened', () => calls.push('second'))
  emitter.emit('opened', 'a')
  t.same(calls, ['second'])
  emitter.emit('opened', 'b')
  t.same(calls, ['second', 'added'])
})
