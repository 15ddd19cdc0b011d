import type { TSchema } from '@sinclair/typebox'
import type { ResolvedOptions } from '../options.js'
import type { View } from '../registry/query.js'
import type { Connection, Frame } from './connection.js'
import type { SocketServices } from './services.js'

export interface FrameHandler {
  schema: TSchema
  /** What a frame that breaks the schema is answered with, where clients know a text. */
  invalid?: string
  handle (connection: Connection, frame: Frame, services: SocketServices): Promise<void> | void
}

export type TierName = 'public' | 'agents'

/** A tier is data: who comes in, what they see, what they may send. */
export interface Tier {
  name: TierName
  options: ResolvedOptions['publicWs']
  /** Whether a connection must say who it is. */
  authenticates: boolean
  view: View
  handlers: ReadonlyMap<string, FrameHandler>
  /** Silence after which the server sends a protocol ping (ms). */
  protocolPingMs: number
}
