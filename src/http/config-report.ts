import { isDeepStrictEqual } from 'node:util'
import type { TSchema } from '@sinclair/typebox'
import { OptionsSchema, type ResolvedOptions } from '../options.js'

/** Names of options that differ from their default, by what they are about. */
export interface Configured {
  /** Those without which nobody gets in. */
  required: string[]
  azure: string[]
  redis: string[]
  security: string[]
  agent: string[]
  service: string[]
}

const required = new Set(['jwt.secret', 'admin.password', 'agentKeys'])
const groups: Record<string, Exclude<keyof Configured, 'required'>> = {
  embed: 'azure',
  redis: 'redis',
  jwt: 'security',
  admin: 'security',
  attempts: 'security',
  addresses: 'security',
  authenticate: 'security',
  publicView: 'security',
  publicFields: 'security',
  metricsScrapeToken: 'security',
  allowedAgentTypes: 'agent',
  lease: 'agent',
  onRegister: 'agent'
}

/** Paths of what is set below `schema`: groups are looked into, everything else is one setting. */
function changedBelow (schema: TSchema, value: unknown, path: string[] = []): string[] {
  if (value === undefined) return []
  const isGroup = schema.properties !== undefined && schema.default !== undefined
  if (!isGroup && path.length > 0) return isDeepStrictEqual(value, schema.default) ? [] : [path.join('.')]
  return Object.entries<TSchema>(schema.properties).flatMap(([name, child]) => changedBelow(child, (value as Record<string, unknown>)[name], [...path, name]))
}

/** Which options are set to something else than their default; never to what. */
export function configured (options: ResolvedOptions): Configured {
  const found: Configured = { required: [], azure: [], redis: [], security: [], agent: [], service: [] }
  for (const name of changedBelow(OptionsSchema, options)) {
    const group = required.has(name) ? 'required' : groups[name.split('.', 1)[0]!] ?? 'service'
    found[group].push(name)
  }
  return found
}
