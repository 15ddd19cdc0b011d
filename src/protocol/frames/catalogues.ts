import type { TSchema } from '@sinclair/typebox'
import { AgentList, agentsClientFrames, agentsServerFrames, AuthenticateFrame } from './agents.js'
import { commonClientFrames, commonServerFrames, PingText, PongText } from './common.js'
import { dashboardClientFrames, dashboardServerFrames } from './dashboard.js'
import { publicClientFrames, publicServerFrames } from './public.js'
import { v1ClientFrames, v1ServerFrames } from './v1.js'

export const tierNames = ['public', 'agents', 'dashboard', 'v1'] as const
export type TierName = typeof tierNames[number]

export interface Messages {
  /** Frames that have a handler, by `type`. */
  readonly client: Readonly<Record<string, TSchema>>
  readonly server: readonly TSchema[]
  /** Messages without a `type`, by their names in documents. */
  readonly untyped: { readonly client: Readonly<Record<string, TSchema>>, readonly server: Readonly<Record<string, TSchema>> }
}

/** All that goes over a tier, and what the tier is for. */
export interface Catalogue extends Messages { readonly summary: string }

const texts = { 'text-ping': PingText, 'text-pong': PongText }

/** What tiers share. */
export const common: Messages = { client: commonClientFrames, server: commonServerFrames, untyped: { client: texts, server: texts } }

export const catalogues: Readonly<Record<TierName, Catalogue>> = {
  public: {
    summary: 'Anybody, read only',
    client: publicClientFrames,
    server: publicServerFrames,
    untyped: common.untyped
  },
  agents: {
    summary: 'Agents, users and admins, with a token',
    client: agentsClientFrames,
    server: agentsServerFrames,
    untyped: { client: { ...texts, authenticate: AuthenticateFrame }, server: { ...texts, list: AgentList } }
  },
  dashboard: {
    summary: 'Admins',
    client: dashboardClientFrames,
    server: dashboardServerFrames,
    untyped: common.untyped
  },
  v1: {
    summary: 'Peers that speak the Metered realtime protocol, with a token or a publishable key',
    client: v1ClientFrames,
    server: v1ServerFrames,
    untyped: { client: {}, server: {} }
  }
}
