import type { Socket } from 'node:net'
import type { TSchema } from '@sinclair/typebox'
import { dashboardServerFrames } from '../../../src/protocol/frames/dashboard.js'
import { errorCodes } from '../../../src/protocol/codes.js'
import { fieldErrors } from '../../../src/protocol/validation.js'
import type { Client, Harness, Json, Remote } from '../../support/harness.js'
import { nextWhere } from './helper.js'

export const bearer = (token: string, more: object = {}) => ({ headers: { authorization: `Bearer ${token}`, ...more } })

/** The first frames of a dashboard. */
export const firstFrames = ['monitoring', 'health', 'agents', 'logs']

/** An authenticated dashboard; its first frames are in `all`, those up to `logs` were read. */
export async function dashboard (registry: Remote, token: string, more: object = {}): Promise<Client> {
  const client = registry.socket('/dashboard/ws')
  await client.opened
  client.send({ type: 'auth', token, ...more })
  await client.next('logs')
  return client
}

/** Dashboards of one admin. */
export async function dashboards (registry: Harness, count: number): Promise<Client[]> {
  const { token } = await registry.admin()
  return Promise.all(Array.from({ length: count }, () => dashboard(registry, token)))
}

/** Types of the received frames, in order. */
export const typesOf = ({ all }: Client): string[] => all.map(frame => frame.type ?? frame)

/** The frames since the last call, up to the one that answers `requestId`. */
export async function answersTo (client: Client, frame: Json): Promise<Json[]> {
  const seen = client.all.length
  const requestId = `r-${Math.random()}`
  client.send({ ...frame, requestId })
  for (;;) {
    const next = await client.next(undefined, 10_000)
    if (next.requestId === requestId) return client.all.slice(seen, client.all.indexOf(next) + 1)
  }
}

/** The first `logs` frame with an entry of this message, and the entry. */
export async function entryOf (client: Client, message: string | RegExp): Promise<Json> {
  const isIt = (entry: Json) => typeof message === 'string' ? entry.message === message : message.test(entry.message)
  const frame = await nextWhere(client, 'logs', ({ data }) => data.logs.some(isIt))
  return frame.data.logs.find(isIt)
}

/** The socket of a client's connection. */
export const rawOf = ({ ws }: Client) => (ws as unknown as { _socket: Socket })._socket

function isKnown (frame: Json): boolean {
  if (frame === 'ping' || frame === 'pong') return true
  if (frame.type === 'error' && !errorCodes.includes(frame.code)) return false
  const schemas = (dashboardServerFrames as readonly TSchema[]).filter(({ properties }) => properties.type.const === frame.type)
  return schemas.some(schema => fieldErrors(schema, frame).length === 0)
}

/** Frames that the catalogue of the tier lacks or defines differently. */
export const strange = ({ all }: Client): Json[] => all.filter(frame => !isKnown(frame))
