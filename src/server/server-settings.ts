import { Type, type Static } from '@sinclair/typebox'

const levels = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const
const address = '^(loopback|linklocal|uniquelocal|[0-9a-fA-F.:]+(/[0-9]{1,3})?)$'

/** Settings of the stand-alone server that are not options of the plugin; annotated like `OptionsSchema`. */
export const ServerSettingsSchema = Type.Object({
  host: Type.String({ minLength: 1, default: '127.0.0.1', pattern: '^[^\\s/]+$', description: 'Address to listen at; 0.0.0.0 or :: for all', env: ['ARCP_HOST', 'HOST'] }),
  port: Type.Integer({ minimum: 0, maximum: 65_535, default: 8001, description: 'Port to listen at; 0 takes a free one', env: ['ARCP_PORT', 'PORT'] }),
  logLevel: Type.Union(levels.map(level => Type.Literal(level)), {
    default: 'info',
    description: 'Least severity that is logged: fatal, error, warn, info, debug, trace or silent',
    env: ['LOG_LEVEL'],
    envAliases: { warning: 'warn', critical: 'fatal' }
  }),
  trustProxy: Type.Union([Type.Boolean(), Type.Array(Type.String({ pattern: address }), { minItems: 1 })], {
    default: false,
    description: 'Whose X-Forwarded-* headers count: true, false, or a list of addresses and CIDR ranges',
    env: ['TRUST_PROXY']
  }),
  headersTimeoutMs: Type.Integer({ minimum: 100, maximum: 600_000, default: 10_000, description: 'Time a client has to send the head of a request or upgrade (ms)', env: ['HEADERS_TIMEOUT'], envFactor: 1000 }),
  requestTimeoutMs: Type.Integer({ minimum: 100, maximum: 3_600_000, default: 60_000, description: 'Time a client has to send a whole request (ms)', env: ['REQUEST_TIMEOUT'], envFactor: 1000 })
}, { additionalProperties: false })

export type ServerSettings = Static<typeof ServerSettingsSchema>
