import t from 'tap'
import { build } from '../support/harness.js'

t.test('an agent registers, is seen and goes', async t => {
  const registry = await build(t)
  const watcher = await registry.watcher()
  const token = await registry.agent()
  t.equal((await watcher.next('agents_update')).data.total_count, 1)
  const socket = await registry.agentSocket(token)
  t.equal(socket.success.agent_id, 'agent-one')
  t.equal((await registry.delete('/agents/agent-one', { token })).status, 200)
  t.equal((await socket.closed).code, 4001)
  watcher.close()
})
