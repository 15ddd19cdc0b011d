import type { Client, Json, Remote } from './harness.js'
import { ask } from '../unit/sockets/channels-helper.js'

export const channel = 'workflows/run-1/subtasks'

/** A subscriber that disconnects repeatedly, and resumes at another process after its last position. */
export class RoamingSubscriber {
  readonly received: Json[] = []
  readonly recovered: boolean[] = []
  readonly gaps: Json[] = []
  readonly #registries: readonly Remote[]
  readonly #token: string
  #since: { epoch: string, offset: number } | undefined
  #client: Client | undefined
  #moves = 0

  constructor (registries: readonly Remote[], token: string) {
    this.#registries = registries
    this.#token = token
  }

  async move (): Promise<void> {
    this.#client?.ws.terminate()
    const client = this.#registries[this.#moves++ % this.#registries.length]!.socket('/agents/ws')
    this.#client = client
    client.ws.on('message', data => {
      const text = data.toString()
      // Ignore pings, and frames of a terminated connection.
      if (this.#client === client && text.startsWith('{')) this.#receive(JSON.parse(text))
    })
    await client.next('auth_required')
    client.send({ token: this.#token })
    await client.next('auth_success')
    const { epoch, offset, recovered } = await ask(client, { type: 'subscribe', channel, since: this.#since })
    this.#since ??= { epoch, offset }
    this.recovered.push(recovered)
  }

  #receive (frame: Json) {
    if (frame.type === 'channel_gap') this.gaps.push(frame)
    if (frame.type !== 'message' || frame.channel !== channel) return
    this.received.push(frame)
    this.#since = { epoch: frame.epoch, offset: frame.offset }
  }
}
