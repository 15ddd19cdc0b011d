import { logPrelude, logsAppend, logsLocate, logsRead } from './logs.js'
import { placePrelude, placesBeat, placesChange, placesRoster, placesSweep } from './presence.js'

const logScripts = { logsAppend, logsRead, logsLocate }
const placeScripts = { placesChange, placesBeat, placesSweep, placesRoster }

export type BrokerScript = keyof typeof logScripts | keyof typeof placeScripts

function define (prelude: string, scripts: Record<string, string>) {
  return Object.entries(scripts).map(([name, body]) => [name, prelude + body] as const)
}

/** Lua of every script; each takes one key, whose prefix is that of all keys it uses. */
export const brokerScripts: ReadonlyMap<string, string> = new Map([...define(logPrelude, logScripts), ...define(placePrelude, placeScripts)])
