import t from 'tap'
import { callHook } from '../../../src/lib/hook-timeout.js'

t.test('a hook answers at once or later', async t => {
  t.equal(await callHook('embed', 1000, () => 1), 1)
  t.equal(await callHook('embed', 1000, async () => 2), 2)
})

t.test('what a hook throws is passed on', async t => {
  await t.rejects(callHook('embed', 1000, () => { throw new Error('at once') }), { message: 'at once' })
  await t.rejects(callHook('embed', 1000, async () => { throw new Error('later') }), { message: 'later' })
})

t.test('a hook that hangs is given up, and its late failure harms nobody', async t => {
  const alive = setInterval(() => {}, 1000)
  t.teardown(() => clearInterval(alive))
  let fail!: (error: Error) => void
  const hanging = new Promise<void>((_resolve, reject) => { fail = reject })
  await t.rejects(callHook('embed', 5, () => hanging), { code: 'AGENT_REGISTRY_HOOK_TIMEOUT', statusCode: 503, message: /embed.*5 ms/ })
  fail(new Error('too late'))
  await new Promise(resolve => setImmediate(resolve))
})
