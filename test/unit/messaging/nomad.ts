import type { Client, Json, Remote } from '../../support/harness.js'
import { ask } from '../sockets/channels-helper.js'

export const channel = 'workflows/run-1/subtasks'

/** A subscriber that is cut again and again, and comes back elsewhere with the position that it knows. */
export class Nomad {
  readonly heard: Json[] = []
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
      // What a dead connection still brings is not heard, and a ping says nothing.
      if (this.#client === client && text.startsWith('{')) this.#hear(JSON.parse(text))
    })
    await client.next('auth_required')
    client.send({ token: this.#token })
    await client.next('auth_success')
    const { epoch, offset, recovered } = await ask(client, { type: 'subscribe', channel, since: this.#since })
    this.#since ??= { epoch, offset }
    this.recovered.push(recovered)
  }

  #hear (frame: Json) {
    if (frame.type === 'channel_gap') this.gaps.push(frame)
    if (frame.type !== 'message' || frame.channel !== channel) return
    this.heard.push(frame)
    this.#since = { epoch: frame.epoch, offset: frame.offset }
  }
}
