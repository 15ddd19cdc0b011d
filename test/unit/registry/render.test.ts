import t from 'tap'
import { Value } from '@sinclair/typebox/value'
import { Rendering } from '../../../src/registry/render.js'
import { AgentInfo, hideableFields } from '../../../src/protocol/schemas/agent.js'
import { registration } from '../../support/harness.js'
import { parse, record } from './helper.js'

const rich = {
  features: ['f'],
  max_tokens: 5,
  language_support: ['en'],
  rate_limit: 5,
  requirements: { permissions: ['net'] },
  policy_tags: ['internal'],
  ai_context: 'how'
}
const { body } = parse(rich)
const agent = record('agent-one', { body, revision: 7, incarnation: 3, registeredAt: Date.UTC(2030, 0, 31, 12), lastSeen: Date.UTC(2030, 0, 31, 12, 0, 1, 5), state: 'suspect' })

t.test('an agent is shown with all that it registered and all that the registry knows', async t => {
  const info = new Rendering(agent, 'e', []).info()
  t.same([...Value.Errors(AgentInfo, info)], [])
  t.match(info, {
    ...registration('agent-one', rich),
    registered_at: '2030-01-31T12:00:00.000Z',
    revision: 'e:7',
    incarnation: 3,
    status: 'alive',
    state: 'suspect',
    last_seen: '2030-01-31T12:00:01.005Z',
    similarity: null,
    metrics: { agent_id: 'agent-one', total_requests: 0, last_active: '2030-01-31T12:00:00.000Z' }
  })
  t.strictSame(Object.keys(info), Object.keys(AgentInfo.properties))
})

t.test('a dead agent has the status that existing clients know', async t => {
  t.match(new Rendering({ ...agent, state: 'dead' }, 'e', []).info(), { status: 'dead', state: 'dead' })
})

t.test('metrics are null when nobody asked for them', async t => {
  const rendering = new Rendering(agent, 'e', [])
  t.equal(JSON.parse(rendering.full(false)).metrics, null)
  t.equal(JSON.parse(rendering.public(false)!).metrics, null)
  t.match(JSON.parse(rendering.full()).metrics, { agent_id: 'agent-one' })
})

t.test('without hidden fields the public sees what agents see', async t => {
  const rendering = new Rendering(agent, 'e', [])
  t.equal(rendering.public(), rendering.full())
})

t.test('hidden fields keep their place, publicly, and hold nothing', async t => {
  const rendering = new Rendering(agent, 'e', hideableFields)
  const shown = JSON.parse(rendering.public()!)
  t.match(shown, { features: [], policy_tags: [], max_tokens: null, language_support: null, rate_limit: null, requirements: null, ai_context: null, metrics: null })
  t.match(shown, registration())
  t.strictSame(Object.keys(shown), Object.keys(AgentInfo.properties))
  t.same([...Value.Errors(AgentInfo, shown)], [])
  t.match(rendering.info(), { features: ['f'], ai_context: 'how', requirements: { permissions: ['net'] } })
  t.equal(rendering.public(), rendering.public())
})

t.test('a public view takes the place of the registration, publicly', async t => {
  const publicBody = parse({ ...rich, name: 'Public name', owner: 'public' }).body
  const rendering = new Rendering({ ...agent, publicBody }, 'e', ['ai_context'])
  t.match(JSON.parse(rendering.public()!), { name: 'Public name', owner: 'public', ai_context: null, max_tokens: 5, revision: 'e:7' })
  t.match(rendering.info(), { name: 'Agent One', ai_context: 'how' })
  t.equal(new Rendering({ ...agent, publicBody: null }, 'e', []).public(), null)
})
