import { registration, type Answer, type Json, type Remote } from './harness.js'

export const kindsOfOperation = [
  'register', 'heartbeat', 'late heartbeat', 'report', 'drain', 'maintain', 'wake', 'rename', 'unregister', 'read'
] as const

/** The next operation on an agent, the process that it uses, and the process that checks the outcome. */
export interface Operation { does: typeof kindsOfOperation[number], at: number, lookAt: number }

type Admin = Awaited<ReturnType<Remote['admin']>>
const isAsked = (state: string) => state === 'draining' || state === 'maintenance'

/** The expected state of one agent by all responses, and the errors found in them. */
export class ModelAgent {
  readonly id: string
  readonly faults: string[] = []
  readonly #fleet: readonly Remote[]
  readonly #admin: Admin
  #steps = 0
  #exists = true
  #state = 'starting'
  #name: string
  #reports = 0
  #revision: string
  #incarnation: number
  #token: string
  /** Token of the previous instance. */
  #lateToken: string | null = null

  /** @param registered response to the first registration */
  constructor (fleet: readonly Remote[], admin: Admin, { agent_id: id, access_token: token, revision, incarnation }: Json) {
    this.id = id
    this.#fleet = fleet
    this.#admin = admin
    this.#name = 'Agent One'
    this.#token = token
    this.#revision = revision
    this.#incarnation = incarnation
  }

  async run ({ does, at, lookAt }: Operation): Promise<void> {
    this.#steps++
    const member = this.#fleet[at]!
    if (does === 'register') return this.#register(member)
    if (does === 'unregister') return this.#unregister(member)
    if (does === 'rename') return this.#rename(member)
    if (does === 'read') return this.#look(this.#fleet[lookAt]!)
    if (does === 'late heartbeat') return this.#beatLate(member)
    if (does === 'heartbeat' || does === 'report') return this.#sign(member, does)
    return this.#ask(member, ({ drain: 'draining', maintain: 'maintenance', wake: 'alive' })[does])
  }

  /** The difference between a record of a process and the model; null if there is no record. */
  difference (record: Json): string | undefined {
    const expected = this.#exists ? { ...this.#shown, reports: this.#reports } : null
    const actual = record && { ...shownOf(record), reports: record.metrics?.total_requests ?? 0 }
    return JSON.stringify(actual) === JSON.stringify(expected)
      ? undefined
      : `${JSON.stringify(actual)} instead of ${JSON.stringify(expected)}`
  }

  get #shown () {
    return { id: this.id, state: this.#state, name: this.#name, revision: this.#revision, incarnation: this.#incarnation }
  }

  /** The token of an agent that unregistered itself only allows registering. */
  get #caller () {
    return this.#exists ? { token: this.#token } : this.#admin
  }

  async #register (member: Remote) {
    const name = `Name ${this.#steps}`
    const answer = await member.post('/agents/register', { token: this.#token, body: registration(this.id, { name }) })
    if (!this.#expect(answer, 200)) return
    const { created, access_token: token, revision, incarnation } = answer.body
    if (created === this.#exists) this.#fault(`created is ${created}`)
    if (incarnation <= this.#incarnation) this.#fault(`incarnation ${incarnation} after ${this.#incarnation}`)
    this.#lateToken = created ? null : this.#token
    if (created) this.#reports = 0
    this.#exists = true
    this.#state = 'starting'
    ;[this.#name, this.#revision, this.#incarnation, this.#token] = [name, revision, incarnation, token]
  }

  async #unregister (member: Remote) {
    if (this.#expect(await member.delete(`/agents/${this.id}`, this.#caller), this.#exists ? 200 : 404)) this.#exists = false
  }

  async #rename (member: Remote) {
    const name = `Renamed ${this.#steps}`
    const caller = this.#caller
    const answer = await member.patch(`/agents/${this.id}`, { ...caller, body: { name }, headers: this.#headers(caller) })
    if (!this.#expect(answer, this.#exists ? 200 : 404) || !this.#exists) return
    this.#name = name
    this.#revision = answer.body.revision
  }

  async #beatLate (member: Remote) {
    if (!this.#exists || this.#lateToken === null) return
    this.#expect(await member.post(`/agents/${this.id}/heartbeat`, { token: this.#lateToken }), 409)
  }

  async #sign (member: Remote, does: 'heartbeat' | 'report') {
    const body = does === 'report' ? { response_time: 0.1, success: true, operation: 'test' } : undefined
    const path = does === 'report' ? 'metrics' : 'heartbeat'
    if (!this.#expect(await member.post(`/agents/${this.id}/${path}`, { ...this.#caller, body }), this.#exists ? 200 : 404) ||
      !this.#exists) return
    if (does === 'report') this.#reports++
    if (this.#state === 'alive' || isAsked(this.#state)) return
    // The first heartbeat is a change whose revision is not in the response; the process that received it has it.
    this.#state = 'alive'
    const { body: record } = await member.get(`/agents/${this.id}`, { token: this.#token })
    this.#revision = record.revision
    this.#compare(record)
  }

  async #ask (member: Remote, status: string) {
    const answer = await member.post(`/agents/${this.id}/status`, { ...this.#caller, body: { status } })
    if (!this.#expect(answer, this.#exists ? 200 : 404) || !this.#exists) return
    this.#state = status
    this.#revision = answer.body.revision
  }

  async #look (member: Remote) {
    if (!this.#exists) return
    const caller = this.#caller
    const answer = await member.get(`/agents/${this.id}`, { ...caller, headers: this.#headers(caller) })
    if (this.#expect(answer, 200)) this.#compare(answer.body)
  }

  #headers (caller: { token: string, headers?: Record<string, string> }) {
    return { ...caller.headers, 'x-min-revision': this.#revision }
  }

  #compare (record: Json) {
    const [actual, expected] = [JSON.stringify(shownOf(record)), JSON.stringify(this.#shown)]
    if (actual !== expected) this.#fault(`${actual} instead of ${expected}`)
  }

  #expect ({ status, text }: Answer, expected: number): boolean {
    if (status !== expected) this.#fault(`${status} instead of ${expected}: ${text}`)
    return status === expected
  }

  #fault (text: string) {
    this.faults.push(`${this.id}, step ${this.#steps}: ${text}`)
  }
}

const shownOf = ({ agent_id: id, state, name, revision, incarnation }: Json) => ({ id, state, name, revision, incarnation })
