import { EventEmitter } from 'node:events'
import type { AgentInfo } from '../protocol/schemas/agent.js'
import type { AgentState } from '../protocol/schemas/common.js'
import type { ChangeEvent } from '../storage/agent-store.js'

/** A transition as the host hears of it. */
export interface RegistryEvent {
  type: ChangeEvent
  revision: string
  agent_id: string
  /** The agent after the change, as it was last when it is gone. */
  agent: AgentInfo
  /** Null when the agent is new. */
  previous: AgentState | null
  reason: string
}

export type RegistryEvents = { [Event in ChangeEvent]: [event: RegistryEvent] } & { change: [event: RegistryEvent] }

/** `registered updated alive dead unregistered state`, and `change` for all of them in order. */
export class RegistryEmitter extends EventEmitter<RegistryEvents> {}
