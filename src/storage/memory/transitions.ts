import type { AgentState } from '../../protocol/schemas/common.js'
import type { AgentRecord, Claim, Heartbeat, StateCommand } from '../agent-store.js'

/** Rules that every store follows. They are pure: the store does them atomically, wherever it keeps its agents. */

/** Whether a claim may register an id that `existing` holds. */
export function mayReplace (existing: AgentRecord, claim: Claim): boolean {
  if (claim.kind === 'owner' || claim.exclusive || existing.state === 'dead') return true
  return existing.state === 'suspect' && existing.ownerKey === claim.digest
}

export function isStale (record: AgentRecord, sign: Heartbeat): boolean {
  return sign.incarnation !== undefined && sign.incarnation < record.incarnation
}

/** The state after a sign of life: what an agent asked for lasts, what was only feared does not. */
export function afterSign (state: AgentState): AgentState {
  return state === 'draining' || state === 'maintenance' ? state : 'alive'
}

export function signReason (before: AgentState): string {
  if (before === 'dead') return 'revived'
  return before === 'starting' ? 'first-sign' : 'resumed'
}

/** The state after `wanted` was asked for. A lost connection says nothing of an agent that is away on purpose or dead. */
export function afterCommand (state: AgentState, wanted: StateCommand['state']): AgentState {
  if (wanted !== 'suspect') return wanted
  return state === 'alive' || state === 'starting' ? 'suspect' : state
}

/** Leases of agents that said they would go are not a sign of a fault of ours. */
export function isAnnounced (state: AgentState): boolean {
  return state === 'draining' || state === 'maintenance'
}

/** Grows over all agents and restarts, so that a token of a former life is always told apart. */
export function nextIncarnation (last: number, now: number): number {
  return Math.max(last + 1, now)
}
