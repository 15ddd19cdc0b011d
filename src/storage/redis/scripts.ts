import { readFileSync } from 'node:fs'

const agentScripts = [
  'register', 'update', 'remove', 'set-state', 'renew', 'report', 'expire', 'release', 'extend', 'pulse', 'page'
] as const
const kvScripts = ['kv-get', 'kv-put', 'kv-take', 'kv-list', 'tokens-take', 'tokens-return'] as const
const brokerScripts = [
  'log-append', 'log-read', 'log-locate', 'presence-change', 'presence-heartbeat', 'presence-sweep', 'presence-roster'
] as const

export type AgentScript = typeof agentScripts[number]
export type KeyValueScript = typeof kvScripts[number]
export type BrokerScript = typeof brokerScripts[number]
export type ScriptName = AgentScript | KeyValueScript | BrokerScript

/** Reads a file of the folder `scripts`. A line `-- include <name>` is replaced by the file of that name. */
function readScript (name: string): string {
  const text = readFileSync(new URL(`./scripts/${name}.lua`, import.meta.url), 'utf8')
  return text.replace(/^-- include (\S+)$/gm, (_line, included: string) => readScript(included))
}

/** The Lua text of every script. Each takes one key, whose prefix is that of all keys that the script uses. */
export const scripts: ReadonlyMap<ScriptName, string> = new Map(
  [...agentScripts, ...kvScripts, ...brokerScripts].map(name => [name, readScript(name)])
)
