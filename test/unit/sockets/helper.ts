import type { Socket } from 'node:net'
import type { TSchema } from '@sinclair/typebox'
import { AgentList, agentsServerFrames } from '../../../src/protocol/frames/agents.js'
import { publicServerFrames } from '../../../src/protocol/frames/public.js'
import { v1ServerFrames } from '../../../src/protocol/frames/v1.js'
import { errorCodes } from '../../../src/protocol/codes.js'
import { fieldErrors } from '../../../src/protocol/validation.js'
import type { Claims } from '../../../src/protocol/schemas/claims.js'
import { hmacSigner } from '../auth/helper.js'
import { secret, type Client, type Harness, type Json } from '../../support/harness.js'

/** An open socket of each tier that may send every frame. */
export const openers: Record<'public' | 'agents', (registry: Harness) => Promise<Client>> = {
  public: registry => registry.watcher(),
  agents: async registry => registry.agentSocket(await registry.join('agent-open'))
}

/** The next frame of a type for which `isRight` returns true; frames before it are skipped. */
export async function nextWhere (client: Client, type: string, isRight: (frame: Json) => unknown, within = 10_000): Promise<Json> {
  const deadline = Date.now() + within
  for (;;) {
    const frame = await client.next(type, Math.max(1, deadline - Date.now()))
    if (isRight(frame)) return frame
  }
}

/** Sends a frame that must get an `error`, then checks that the socket still works. */
export async function refusalOf (client: Client, frame: unknown): Promise<Json> {
  client.send(frame)
  const error = await client.next('error')
  await assertAlive(client)
  return error
}

/** Checks that the socket answers and has handled all earlier frames. */
export async function assertAlive (client: Client): Promise<void> {
  const requestId = `alive-${Math.random()}`
  client.send({ type: 'ping', requestId })
  await nextWhere(client, 'pong', frame => frame.requestId === requestId)
}

/** The socket of a client's connection. */
export const rawOf = ({ ws }: Client) => (ws as unknown as { _socket: Socket })._socket

/** Sends frames in one write. */
export function sendTogether (client: Client, frames: readonly unknown[]) {
  rawOf(client).cork()
  for (const frame of frames) client.send(frame)
  rawOf(client).uncork()
}

function schemasOf (frame: Json, catalogue: readonly TSchema[]): readonly TSchema[] {
  if (Array.isArray(frame)) return [AgentList]
  return catalogue.filter(({ properties }) => properties.type.const === frame.type)
}

function isKnown (frame: Json, catalogue: readonly TSchema[]): boolean {
  if (typeof frame === 'string') return frame === 'ping' || frame === 'pong'
  if (frame.type === 'error' && !errorCodes.includes(frame.code)) return false
  return schemasOf(frame, catalogue).some(schema => fieldErrors(schema, frame).length === 0)
}

const catalogues = { public: publicServerFrames, agents: agentsServerFrames, v1: v1ServerFrames }

/** Client frames that the catalogue of the tier lacks or defines differently. */
export function undocumentedFrames (tier: keyof typeof catalogues, frames: readonly Json[]): Json[] {
  const catalogue = catalogues[tier]
  return frames.filter(frame => !isKnown(frame, catalogue))
}

/** The claims of a token, changed and signed again. */
export function forge (token: string, changes: object = {}, key = secret): string {
  const claims = JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString()) as Claims
  return hmacSigner(key).sign({ ...claims, ...changes })
}

/** The same claims, unsigned. */
export function unsigned (token: string): string {
  return `${Buffer.from('{"alg":"none","typ":"JWT"}').toString('base64url')}.${token.split('.')[1]}.`
}

export const expired = (token: string) => forge(token, { exp: Math.floor(Date.now() / 1000) - 5 })
