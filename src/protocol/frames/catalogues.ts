import type { TSchema } from '@sinclair/typebox'
import { AgentList, agentsClientFrames, agentsServerFrames, AuthenticateFrame } from './agents.js'
import { commonClientFrames, commonServerFrames, PingText, PongText } from './common.js'
import { dashboardClientFrames, dashboardServerFrames } from './dashboard.js'
import { publicClientFrames, publicServerFrames } from './public.js'
import { v1ClientFrames, v1ServerFrames } from './v1.js'

export const tierNames = ['public', 'agents', 'dashboard', 'v1'] as const
export type TierName = typeof tierNames[number]

export interface Messages {
  /** Frames with a handler, by `type`. */
  readonly client: Readonly<Record<string, TSchema>>
  readonly server: readonly TSchema[]
  /** Messages without a `type`, by their names in the documents. */
  readonly untyped: { readonly client: Readonly<Record<string, TSchema>>, readonly server: Readonly<Record<string, TSchema>> }
}

/** All messages of a tier. */
export interface Catalogue extends Messages { readonly summary: string }

const texts = { 'text-ping': PingText, 'text-pong': PongText }

/** Messages of all tiers except `/v1`. */
export const common: Messages = { client: commonClientFrames, server: commonServerFrames, untyped: { client: texts, server: texts } }

export const catalogues: Readonly<Record<TierName, Catalogue>> = {
  public: {
    summary: 'Public, read-only, without authentication',
    client: publicClientFrames,
    server: publicServerFrames,
    untyped: common.untyped
  },
  agents: {
    summary: 'Agents, users and admins, authenticated with a token',
    client: agentsClientFrames,
    server: agentsServerFrames,
    untyped: { client: { ...texts, authenticate: AuthenticateFrame }, server: { ...texts, list: AgentList } }
  },
  dashboard: {
    summary: 'Admins, for the dashboard',
    client: dashboardClientFrames,
    server: dashboardServerFrames,
    untyped: common.untyped
  },
  v1: {
    summary: 'Clients of the Metered realtime protocol, authenticated with a token or a publishable key',
    client: v1ClientFrames,
    server: v1ServerFrames,
    untyped: { client: {}, server: {} }
  }
}
