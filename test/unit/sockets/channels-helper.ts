import { nextWhere } from './helper.js'
import type { Client, Harness, Json } from '../../support/harness.js'

let asked = 0

/** Sends a frame. @returns its answer */
export async function ask (client: Client, frame: object): Promise<Json> {
  const requestId = `ask-${asked++}`
  client.send({ requestId, ...frame })
  return await answerTo(client, requestId)
}

/** The answer to a request, of any type, received already or not. */
export async function answerTo (client: Client, requestId: string): Promise<Json> {
  const find = () => client.all.find(frame => frame.requestId === requestId)
  const deadline = Date.now() + 20_000
  while (!find()) {
    if (Date.now() > deadline) throw new Error(`No answer to ${requestId}`)
    await new Promise(resolve => setTimeout(resolve, 2))
  }
  return find()
}

/** A connected agent. */
export async function peer (registry: Harness, id: string, more: object = {}): Promise<Client & { success: Json }> {
  return await registry.agentSocket(await registry.join(id, more))
}

/** The channel messages that a client received, in order. */
export const received = (client: Client): Json[] => client.all.filter(({ type, channel }) => type === 'message' && channel !== undefined)
export const texts = (client: Client): Json[] => received(client).map(({ data }) => data)

/** The next message of a channel. */
export const nextMessage = (client: Client): Promise<Json> => nextWhere(client, 'message', ({ channel }) => channel !== undefined)
