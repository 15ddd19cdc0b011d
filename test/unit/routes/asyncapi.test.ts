import { Type } from '@sinclair/typebox'
import { Parser } from '@asyncapi/parser'
import fastify from 'fastify'
import t, { type Test } from 'tap'
import { exampleOf } from '../../../src/protocol/asyncapi.js'
import agentRegistry from '../../../src/index.js'
import { catalogues, type TierName } from '../../../src/protocol/frames/catalogues.js'
import { closeCodes, closeMeanings, errorCodes, errorMeanings } from '../../../src/protocol/codes.js'
import { tierHandlers as handlers } from '../../../src/sockets/tiers.js'
import { build, until, withDefaults, type Client, type Harness, type Json } from '../../support/harness.js'
import { dashboard } from '../sockets/dashboard-helper.js'

const tiers = Object.keys(handlers) as TierName[]

const documentOf = async (registry: Harness): Promise<Json> => (await registry.get('/asyncapi.json')).body
const lastOf = ({ $ref }: { $ref: string }) => $ref.split('/').at(-1)!
const docs = { routes: { docs: true, v1: true } }

/** Errors and warnings of the parser, without its hints. */
async function faultsOf (document: Json): Promise<string[]> {
  const { diagnostics } = await new Parser().parse(JSON.stringify(document))
  return diagnostics.filter(({ severity }) => severity < 2).map(({ code, message, path }) => `${code} ${message} ${path.join('/')}`)
}

/** References to parts of the document that do not exist. The parser, which is slow, checks one document only. */
function danglingReferences (document: Json): string[] {
  const references = [...JSON.stringify(document).matchAll(/"\$ref":"#\/([^"]+)"/g)].map(([, path = '']) => path)
  return references.filter(path => path.split('/').reduce((part, key) => part?.[key.replaceAll('~1', '/')], document) === undefined)
}

t.test('AsyncAPI: the document is valid AsyncAPI 3.0', async t => {
  await t.test('AsyncAPI: with all tiers', async t => {
    const registry = await build(t, docs)
    const document = await documentOf(registry)
    t.equal(document.asyncapi, '3.0.0')
    t.same(await faultsOf(document), [])
    t.same(Object.keys(document.channels), tiers)
    t.same(Object.values<Json>(document.channels).map(({ address }) => address), ['/public/ws', '/agents/ws', '/dashboard/ws', '/v1'])
    t.same(document.servers, { registry: { host: new URL(registry.base).host, protocol: 'ws', protocolVersion: '13' } })
  })

  await t.test('AsyncAPI: below a prefix', async t => {
    const document = await documentOf(await build(t, { ...docs, prefix: '/registry', agentsWs: { path: '/peers' } }))
    t.same(danglingReferences(document), [])
    t.same(Object.values<Json>(document.channels)
      .map(({ address }) => address), ['/registry/public/ws', '/registry/peers', '/registry/dashboard/ws', '/registry/v1'])
  })

  await t.test('AsyncAPI: without the dashboard tier', async t => {
    const document = await documentOf(await build(t, { routes: { docs: true, dashboard: false } }))
    t.same(danglingReferences(document), [])
    t.same(Object.keys(document.channels), ['public', 'agents'])
    t.notMatch(JSON.stringify(document.operations), /dashboard\./)
    t.notOk('dashboard.server.logs' in document.components.messages)
  })
})

t.test('AsyncAPI: the document states the address of the registry', async t => {
  await t.test('AsyncAPI: as the operator configured it', async t => {
    const document = await documentOf(await build(t, { ...docs, prefix: '/registry', publicUrl: 'https://agents.example:8443/base/' }))
    t.same(document.servers.registry, { host: 'agents.example:8443', protocol: 'wss', protocolVersion: '13' })
    t.equal(document.channels.public.address, '/base/public/ws')
  })

  await t.test('AsyncAPI: as soon as the server listens', async t => {
    const app = fastify()
    t.teardown(() => app.close())
    await app.register(agentRegistry, withDefaults(docs))
    const hostOf = async () => (await app.inject('/asyncapi.json')).json().servers.registry.host
    t.equal(await hostOf(), 'localhost')
    await app.listen({ port: 0, host: '127.0.0.1' })
    t.match(await hostOf(), /^127\.0\.0\.1:\d+$/)
    t.equal(await hostOf(), await hostOf())
  })

  await t.test('AsyncAPI: the document is absent when documents are disabled', async t => {
    const registry = await build(t, { routes: { docs: false } })
    t.equal((await registry.get('/asyncapi.json')).status, 404)
  })

  await t.test('AsyncAPI: POST is refused with 405', async t => {
    const registry = await build(t, docs)
    t.equal((await registry.post('/asyncapi.json', { body: {} })).status, 405)
  })
})

t.test('AsyncAPI: a tier lists exactly the frames of its handlers', async t => {
  for (const tier of tiers) {
    const { client } = catalogues[tier]
    t.same(Object.keys(client).sort(), [...handlers[tier].keys()].sort(), tier)
    for (const [type, { schema }] of handlers[tier]) {
      t.equal(client[type], schema, `${tier} ${type}: the schema of the handler`)
      t.equal(schema.properties.type.const, type)
    }
  }
})

t.test('AsyncAPI: answers are frames of the tier', async t => {
  for (const tier of tiers) {
    const { client, server, untyped } = catalogues[tier]
    const names = [...server.map(({ properties }) => properties.type.const), ...Object.keys(untyped.server)]
    for (const { answers = [] } of [...Object.values(client), ...Object.values(untyped.client)]) {
      t.same(answers.filter((name: string) => !names.includes(name)), [])
    }
  }
})

t.test('AsyncAPI document', async t => {
  const document = await documentOf(await build(t, docs))
  const { messages, schemas } = document.components

  await t.test('AsyncAPI: every frame of a handler has an operation', async t => {
    for (const tier of tiers) {
      for (const type of handlers[tier].keys()) {
        const { action, channel, messages: [message] } = document.operations[`${tier}.receive.${type}`]
        t.match({ action, channel: lastOf(channel) }, { action: 'receive', channel: tier })
        t.equal(messages[lastOf(message)].payload.properties.type.const, type)
      }
    }
  })

  await t.test('AsyncAPI: every frame of the server is documented as sent or as a reply', async t => {
    for (const tier of tiers) {
      const operations = Object.values<Json>(document.operations).filter(({ channel }) => lastOf(channel) === tier)
      const named = operations.flatMap(({ action, messages, reply }) => action === 'send' ? messages : reply.messages).map(lastOf)
      const known = Object.keys(document.channels[tier].messages).filter(key => /^(\w+\.)?server\./.test(key))
      t.same(known.filter(key => !named.includes(key)), [])
      t.equal(known.length, catalogues[tier].server.length + Object.keys(catalogues[tier].untyped.server).length)
    }
  })

  await t.test('AsyncAPI: each message has a description', async t => {
    for (const [key, { summary }] of Object.entries<Json>(messages)) t.ok(summary, key)
  })

  await t.test('AsyncAPI: tiers with authentication have security schemes', async t => {
    const { operationTraits, securitySchemes } = document.components
    t.same(Object.keys(operationTraits), ['agents', 'dashboard', 'v1'])
    t.same(operationTraits.agents.security.map(lastOf), ['bearer', 'subprotocol', 'ticket', 'token'])
    t.same(operationTraits.dashboard.security.map(lastOf), ['bearer', 'subprotocol', 'ticket'])
    t.same(operationTraits.v1.security.map(lastOf), ['bearer', 'subprotocol', 'token', 'key'])
    t.same(Object.keys(securitySchemes), ['bearer', 'subprotocol', 'ticket', 'token', 'key'])
    t.notOk('traits' in document.operations['public.receive.ping'])
    t.same(Object.keys(document.channels.agents.bindings.ws.query.properties), ['ticket', 'token'])
    t.notOk('query' in document.channels.public.bindings.ws)
    t.same(document.channels.public['x-content-types'], {
      'agent-registry.json': 'application/json', 'agent-registry.msgpack': 'application/msgpack'
    })
  })

  await t.test('AsyncAPI: each code has a description', async t => {
    t.same(schemas.ErrorCode.oneOf.map(
      (code: Json) => [code.const, code.description]
    ), errorCodes.map(code => [code, errorMeanings[code].meaning]))
    const closes = Object.entries(closeCodes) as Array<[keyof typeof closeCodes, number]>
    t.same(schemas.CloseCode.oneOf.map(
      (code: Json) => [code.const, code.description]
    ), closes.map(([name, code]) => [code, closeMeanings[name].meaning]))
  })

  await t.test('AsyncAPI: large schemas are not repeated', async t => {
    const seen = new Set<string>()
    const twice: string[] = []
    JSON.stringify(document.components, (_name, value) => {
      const text = JSON.stringify(value)
      if (value?.type === 'object' && text.length > 200) (seen.has(text) ? twice : []).push(text)
      seen.add(text)
      return value
    })
    t.same(twice, [], 'export the schema from a module that src/protocol/asyncapi/components.ts names')
  })
})

t.test('AsyncAPI: examples have every required member, and messages with members have an example', async t => {
  const schema = Type.Object({
    names: Type.Array(Type.String(), { minItems: 2 }),
    rate: Type.Number({ minimum: 0.5 }),
    anything: Type.Unknown(),
    choice: Type.Union([Type.Literal('a'), Type.Literal('b')]),
    shown: Type.Optional(Type.Integer({ examples: [7] })),
    hidden: Type.Optional(Type.Boolean())
  })
  t.same(exampleOf(schema), { names: ['…', '…'], rate: 0.5, anything: null, choice: 'a', shown: 7 })
  t.same(exampleOf(Type.Object({}, { examples: [{ is: 'this' }] })), { is: 'this' })
})

type Check = (key: string, frame: Json) => Promise<boolean>

/** Validates frames by the JSON Schemas of the document, with the validator of Fastify. */
function checkerOf (t: Test, { components: { messages, schemas } }: Json): Check {
  const app = fastify({ ajv: { customOptions: { coerceTypes: false, removeAdditional: false, useDefaults: false, strict: false } } })
  t.teardown(() => app.close())
  const payloads = new Map(Object.entries<Json>(messages).map(([key, { payload }]) => [key, { ...payload, components: { schemas } }]))
  app.post<{ Body: { key: string, frame: Json } }>(
    '/', async request => ({ isValid: request.validateInput(request.body.frame, payloads.get(request.body.key)!) })
  )
  return async (key, frame) => (await app.inject({ method: 'POST', url: '/', payload: { key, frame } })).json().isValid
}

const nameOf = (frame: Json): string => typeof frame === 'string' ? `text-${frame}` : Array.isArray(frame) ? 'list' : frame.type

/** Frames of a tier that its channel lacks or defines differently. */
async function undocumentedFrames (check: Check, document: Json, tier: TierName, frames: Json[]): Promise<Json[]> {
  const keys = Object.keys(document.channels[tier].messages).filter(key => /^(\w+\.)?server\./.test(key))
  const strange: Json[] = []
  for (const frame of frames) {
    const candidates = keys.filter(key => document.components.messages[key].name === nameOf(frame))
    const verdicts = await Promise.all(candidates.map(key => check(key, frame)))
    if (!verdicts.includes(true)) strange.push(frame)
  }
  return strange
}

t.test('AsyncAPI: each example matches its schema, and a wrong one is detected', async t => {
  const document = await documentOf(await build(t, docs))
  const check = checkerOf(t, document)
  for (const [key, { examples: [{ payload }] }] of Object.entries<Json>(document.components.messages)) t.ok(await check(key, payload), key)
  t.notOk(await check('client.watch', { type: 'watch', filter: { agent_type: '!' } }))
  t.notOk(await check('server.error', { type: 'error', code: 'no_such_code', message: '' }))
  t.notOk(await check('agents.server.list', [{}]))
})

/** An open socket per tier, with the token that it may send again. */
const openers: Record<TierName, (registry: Harness) => Promise<{ client: Client, token: string }>> = {
  public: async registry => ({ client: await registry.watcher(), token: '' }),
  agents: async registry => {
    const token = await registry.join('agent-one')
    return { client: await registry.agentSocket(token), token }
  },
  v1: async registry => {
    const token = await registry.join('agent-one')
    const client = registry.socket(`/v1?token=${token}`)
    await client.next('welcome')
    return { client, token }
  },
  dashboard: async registry => {
    const { token } = await registry.admin()
    return { client: await dashboard(registry, token), token }
  }
}

/** Sends the example of an operation, with the operation name as requestId. */
function ask (client: Client, document: Json, token: string, key: string): void {
  const { messages: [message] } = document.operations[key]
  const { payload } = document.components.messages[lastOf(message)].examples[0]
  client.send({ ...payload, ...(payload.token && { token }), requestId: key })
}

/** Name of the frame that answers an operation. An answer that depends on another process may take five seconds. */
async function answerTo (client: Client, key: string): Promise<string> {
  const answer = () => client.all.find(({ requestId }) => requestId === key)
  await until(answer, 30_000)
  return nameOf(answer())
}

/** The last frame closes the socket. */
const closing = 'agents.receive.goodbye'

for (const tier of tiers) {
  t.test(`AsyncAPI: examples of ${tier} get the documented answers, and every received frame is documented`, async t => {
    const registry = await build(t, { ...docs, feed: { bookmarkIntervalMs: 100 }, sockets: { maxAgentsPerUpdate: 1 } })
    const document = await documentOf(registry)
    await registry.join('agent-two')
    const { client, token } = await openers[tier](registry)
    const answersOf = (key: string): string[] =>
      document.operations[key].reply.messages.map((message: Json) => document.components.messages[lastOf(message)].name)
    const keys = [...handlers[tier].keys()].map(type => `${tier}.receive.${type}`)
    const asked = keys.filter(key => key !== closing)
    for (const key of asked) ask(client, document, token, key)
    for (const key of asked.filter(name => answersOf(name).length > 1)) {
      const answer = await answerTo(client, key)
      t.ok(answersOf(key).includes(answer), `${key}: ${answer}`)
    }
    if (keys.includes(`${tier}.receive.watch`)) {
      client.send('ping')
      await client.next('pong')
      client.send({ type: 'watch', since: 'another:1' })
      for (const type of ['resync', 'agents_snapshot', 'bookmark']) await client.next(type, 30_000)
    }
    if (keys.includes(closing)) {
      ask(client, document, token, closing)
      t.equal(await answerTo(client, closing), 'ack')
    }
    t.same(await undocumentedFrames(checkerOf(t, document), document, tier, client.all), [])
  })
}
