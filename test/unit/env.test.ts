import { readFileSync } from 'node:fs'
import t from 'tap'
import { describeSetting, type Environment, optionsFromEnv, ServerSettingsSchema, settingsOf } from '../../src/server/env.js'
import { OptionsSchema, resolveOptions } from '../../src/options.js'

function failure (env: Environment): string {
  try {
    optionsFromEnv(env)
  } catch (error) {
    return (error as Error).message
  }
  return 'no error'
}

/** The part of the message before the description of what would be right. */
function finding (env: Environment): string {
  return failure(env).replace('Invalid options: \n  ', '').replace(/\. Expected: .*$/s, '')
}

const secret = 's'.repeat(32)

t.test('without variables the defaults hold, with the root, the docs and /v1 on', async t => {
  const { options, server } = optionsFromEnv({})
  t.same(server, { host: '127.0.0.1', port: 8001, logLevel: 'info', trustProxy: false, headersTimeoutMs: 10_000, requestTimeoutMs: 60_000 })
  t.same(options, { routes: { root: true, docs: true, v1: true }, storage: 'level' })
  t.same(optionsFromEnv({ NOBODY_KNOWS_THIS: 'x' }), { options, server }, 'unknown variables are ignored')
})

t.test('whoever says where Redis is uses it, unless another store is named', async t => {
  const given = { REDIS_URL: 'rediss://:hidden@redis.test:6380/2', REDIS_HOST: 'redis.test', REDIS_SENTINELS: 'a:1,[::1]:2', REDIS_CLUSTER: 'a:1' }
  for (const [name, value] of Object.entries(given)) {
    t.equal(optionsFromEnv({ [name]: value }).options.storage, 'redis', name)
    t.equal(optionsFromEnv({ [name]: value, STORE: 'Memory' }).options.storage, 'memory')
  }
  t.equal(optionsFromEnv({ REDIS_URL: ' ' }).options.storage, 'level')
  t.match(optionsFromEnv(given).options.redis, { url: given.REDIS_URL, host: 'redis.test', sentinels: ['a:1', '[::1]:2'], cluster: ['a:1'] })
  t.throws(() => optionsFromEnv({ REDIS_URL: 'redis.test hidden' }), { message: /REDIS_URL: the value has the wrong format/ })
  t.throws(() => optionsFromEnv({ REDIS_CLUSTER: 'redis.test', STORE: 'disk' }), { message: /STORE: 'disk' is not one of memory, level, redis.*\n +REDIS_CLUSTER: 'redis.test' entry 1 has the wrong format/ })
})

t.test('the defaults are the same objects for nobody', async t => {
  optionsFromEnv({ ARCP_ROUTES_DOCS: 'false' })
  t.equal(optionsFromEnv({}).options.routes?.docs, true)
})

t.test('every result is a valid set of plugin options', async t => {
  const { options } = optionsFromEnv({ AGENT_HEARTBEAT_TIMEOUT: '30', JWT_SECRET: secret, ALLOWED_AGENT_TYPES: '*' })
  const resolved = resolveOptions(options)
  t.equal(resolved.lease.durationMs, 30_000)
  t.equal(resolved.jwt.secret, secret)
  t.same(resolved.allowedAgentTypes, ['*'])
})

t.test('numbers are multiplied into the unit of the option', async t => {
  t.equal(optionsFromEnv({ AGENT_HEARTBEAT_TIMEOUT: '0.2' }).options.lease?.durationMs, 200, 'fractions of a second')
  t.equal(optionsFromEnv({ JWT_EXPIRE_MINUTES: '0.001' }).options.jwt?.expiresInMs, 60, 'without rounding errors')
  t.equal(optionsFromEnv({ SESSION_TIMEOUT: ' 30 ' }).options.admin?.sessionTimeoutMs, 1_800_000)
  t.equal(optionsFromEnv({ RATE_LIMIT_RPM: '100' }).options.attempts?.windowMs, 900_000)
  t.equal(optionsFromEnv({ MAX_SESSIONS: '7' }).options.admin?.maxSessions, 7)
})

t.test('booleans have eight words, in any case', async t => {
  for (const word of ['true', '1', 'yes', 'on', 'TRUE', ' On ']) t.equal(optionsFromEnv({ IP_DEFAULT_DENY: word }).options.addresses?.defaultDeny, true, word)
  for (const word of ['false', '0', 'no', 'off', 'No']) t.equal(optionsFromEnv({ IP_DEFAULT_DENY: word }).options.addresses?.defaultDeny, false, word)
})

t.test('lists are separated by commas, or JSON', async t => {
  t.same(optionsFromEnv({ BLOCKED_IPS: '10.0.0.1, 10.1.0.0/16,,' }).options.addresses?.blocked, ['10.0.0.1', '10.1.0.0/16'])
  t.same(optionsFromEnv({ BLOCKED_IPS: ' ["10.0.0.1"]' }).options.addresses?.blocked, ['10.0.0.1'])
  t.same(optionsFromEnv({ AGENT_KEYS: 'first-agent-key,second-agent-key' }).options.agentKeys, ['first-agent-key', 'second-agent-key'])
  const keys = [{ key: 'an,exclusive,key', exclusive: true }, { key: 'without-exclusive' }, 'a-plain-key']
  t.same(optionsFromEnv({ AGENT_KEYS: JSON.stringify(keys) }).options.agentKeys, keys)
})

t.test('a secret may hold commas: only JSON makes it a list', async t => {
  const withCommas = `${secret},${secret}`
  t.equal(optionsFromEnv({ JWT_SECRET: withCommas }).options.jwt?.secret, withCommas)
  t.same(optionsFromEnv({ JWT_SECRET: JSON.stringify([secret, withCommas]) }).options.jwt?.secret, [secret, withCommas])
})

t.test('a password is taken as it is, blanks at its ends included', async t => {
  t.equal(optionsFromEnv({ ADMIN_PASSWORD: ' pass word ' }).options.admin?.password, ' pass word ')
})

t.test('names of levels and algorithms count in any case, and as ARCP writes them', async t => {
  t.equal(optionsFromEnv({ LOG_LEVEL: 'DEBUG' }).server.logLevel, 'debug')
  t.equal(optionsFromEnv({ LOG_LEVEL: 'WARNING' }).server.logLevel, 'warn')
  t.equal(optionsFromEnv({ LOG_LEVEL: 'critical' }).server.logLevel, 'fatal')
  t.equal(optionsFromEnv({ JWT_ALGORITHM: 'hs512' }).options.jwt?.algorithm, 'HS512')
})

t.test('a proxy is trusted by word or by address', async t => {
  t.equal(optionsFromEnv({ TRUST_PROXY: 'yes' }).server.trustProxy, true)
  t.equal(optionsFromEnv({ TRUST_PROXY: '0' }).server.trustProxy, false)
  t.same(optionsFromEnv({ TRUST_PROXY: 'loopback, 10.0.0.0/8, ::1' }).server.trustProxy, ['loopback', '10.0.0.0/8', '::1'])
})

t.test('of several variables the first that is set wins, and blank is not set', async t => {
  t.equal(optionsFromEnv({ ARCP_PORT: '1', PORT: '2' }).server.port, 1)
  t.equal(optionsFromEnv({ ARCP_PORT: ' ', PORT: '2' }).server.port, 2)
  t.equal(optionsFromEnv({ ARCP_PORT: '', PORT: '' }).server.port, 8001)
  t.equal(optionsFromEnv({ PORT: '0' }).server.port, 0, '0 is a port: any free one')
  const { options } = optionsFromEnv({ WEBSOCKET_INTERVAL: '9', AGENT_WS_INTERVAL: '3' })
  t.equal(options.publicWs?.intervalMs, 9_000)
  t.equal(options.agentsWs?.intervalMs, 3_000)
})

t.test('what is wrong with a number', async t => {
  t.equal(finding({ PORT: 'http' }), "PORT: 'http' is not a number")
  t.equal(finding({ PORT: '0x50' }), "PORT: '0x50' is not a number")
  t.equal(finding({ PORT: '70000' }), "PORT: '70000' is too large, the maximum is 65535")
  t.equal(finding({ PORT: '80.5' }), "PORT: '80.5' is not a whole multiple of 1")
  t.equal(finding({ ARCP_PORT: '-1', PORT: '2' }), "ARCP_PORT: '-1' is too small, the minimum is 0")
  t.equal(finding({ AGENT_HEARTBEAT_TIMEOUT: '0.1' }), "AGENT_HEARTBEAT_TIMEOUT: '0.1' is too small, the minimum is 0.2", 'in the unit of the variable')
  t.equal(finding({ AGENT_HEARTBEAT_TIMEOUT: '1.0001' }), "AGENT_HEARTBEAT_TIMEOUT: '1.0001' is not a whole multiple of 0.001")
})

t.test('what is wrong with a word', async t => {
  t.equal(finding({ IP_DEFAULT_DENY: 'maybe' }), "IP_DEFAULT_DENY: 'maybe' is not one of true, 1, yes, on, false, 0, no, off")
  t.equal(finding({ JWT_ALGORITHM: 'none' }), "JWT_ALGORITHM: 'none' is not one of HS256, HS384, HS512")
  t.equal(finding({ LOG_LEVEL: 'loud' }), "LOG_LEVEL: 'loud' is not one of fatal, error, warn, info, debug, trace, silent")
})

t.test('what is wrong with a text', async t => {
  t.equal(finding({ PUBLIC_WS_PATH: 'ws' }), "PUBLIC_WS_PATH: 'ws' has the wrong format")
  t.equal(finding({ ADMIN_USERNAME: 'a'.repeat(256) }), `ADMIN_USERNAME: '${'a'.repeat(256)}' is longer than 255 characters`)
  t.equal(finding({ ARCP_HOST: 'a b' }), "ARCP_HOST: 'a b' has the wrong format")
})

t.test('what is wrong with a list', async t => {
  t.equal(finding({ BLOCKED_IPS: '[1' }), "BLOCKED_IPS: '[1' begins with [ but is not a JSON list")
  t.equal(finding({ BLOCKED_IPS: '[1]' }), "BLOCKED_IPS: '[1]' entry 1 has the wrong type")
  t.equal(finding({ TRUST_PROXY: 'loopback,nonsense' }), "TRUST_PROXY: 'loopback,nonsense' entry 2 has the wrong format")
  t.equal(finding({ TRUST_PROXY: ',' }), "TRUST_PROXY: ',' is an empty list")
})

t.test('what is wrong with a secret is said without showing it', async t => {
  t.equal(finding({ JWT_SECRET: 'too-short-to-be-safe' }), 'JWT_SECRET: the value is shorter than 32 characters')
  t.equal(finding({ JWT_SECRET: `["${secret}", "short"]` }), 'JWT_SECRET: the value entry 2 is shorter than 32 characters')
  t.equal(finding({ AGENT_KEYS: 'long-enough-key,short' }), 'AGENT_KEYS: the value entry 2 is shorter than 10 characters')
  t.equal(finding({ AGENT_KEYS: '[{"key":"long-enough-key","maxAgents":0}]' }), 'AGENT_KEYS: the value entry 1 maxAgents: Expected integer to be greater or equal to 1')
  t.equal(finding({ AGENT_KEYS: '[{"name":"hidden"}]' }), 'AGENT_KEYS: the value entry 1 key: Expected required property')
  t.equal(finding({ AGENT_KEYS: '[null]' }), 'AGENT_KEYS: the value entry 1 value: Expected object')
  t.equal(finding({ ADMIN_PASSWORD: 'x'.repeat(1025) }), 'ADMIN_PASSWORD: the value is longer than 1024 characters')
})

t.test('one error lists every wrong variable once, with what would be right', async t => {
  const lines = failure({ PORT: 'http', LOG_LEVEL: 'loud', WEBSOCKET_INTERVAL: 'often' }).split('\n')
  t.equal(lines.length, 4)
  t.equal(lines[0], 'Invalid options: ')
  t.match(lines[1], /^ {2}WEBSOCKET_INTERVAL: 'often' is not a number\. Expected: .+ \(s\)$/)
  t.equal(lines[2], "  PORT: 'http' is not a number. Expected: Port to listen on; 0 selects a free port")
  t.match(lines[3], /^ {2}LOG_LEVEL: .+ Expected: Minimum severity/)
})

t.test('production needs a secret and a password', async t => {
  const lines = failure({ NODE_ENV: 'production', ADMIN_PASSWORD: ' ' }).split('\n')
  t.equal(lines.length, 3)
  t.match(lines[1], /^ {2}JWT_SECRET: is missing, and NODE_ENV is production\. Expected: Secret of at least 32/)
  t.match(lines[2], /^ {2}ADMIN_PASSWORD: is missing/)
  t.equal(failure({ NODE_ENV: 'production', JWT_SECRET: secret, ADMIN_PASSWORD: 'p' }), 'no error')
  t.equal(failure({ NODE_ENV: 'test' }), 'no error')
})

t.test('descriptions are in the unit of the variable', async t => {
  const settings = [...settingsOf(ServerSettingsSchema), ...settingsOf(OptionsSchema)]
  for (const setting of settings) {
    const text = describeSetting(setting)
    t.not(text, '', setting.names.join())
    if (setting.factor !== 1) t.notMatch(text, /\(ms\)/, setting.names.join())
  }
  const described = (name: string) => describeSetting(settings.find(({ names }) => names.includes(name))!)
  t.match(described('JWT_EXPIRE_MINUTES'), /\(min\)$/)
  t.match(described('RATE_LIMIT_RPM'), /\(× 9000 ms\)$/)
})

t.test('.env.example names exactly the variables of the schemas, and shows valid defaults', async t => {
  const text = readFileSync('.env.example', 'utf8')
  const entries = [...text.matchAll(/^#([A-Z][A-Z0-9_]*)=(.*)$/gm)].map(([, name = '', value = '']) => [name, value] as const)
  const names = [...settingsOf(ServerSettingsSchema), ...settingsOf(OptionsSchema)].flatMap(setting => setting.names)
  t.same(entries.map(([name]) => name).sort(), [...new Set(names)].sort())
  const shown = optionsFromEnv(Object.fromEntries(entries))
  t.same(shown.server, optionsFromEnv({}).server)
  t.same(resolveOptions(shown.options), resolveOptions(optionsFromEnv({}).options))
})
