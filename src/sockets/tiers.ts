import type { TSchema } from '@sinclair/typebox'
import type { ResolvedOptions } from '../options.js'
import type { View } from '../registry/query.js'
import type { ErrorCode } from '../protocol/codes.js'
import type { Connection } from './connection.js'
import type { TierHandshake } from './handshake.js'
import type { Frame } from '../protocol/parse.js'
import type { SocketServices } from './services.js'

export interface FrameHandler {
  schema: TSchema
  /** What a frame that breaks the schema is answered with, where clients know a text. */
  invalid?: string
  /** Codes for members that break the schema, by their paths; else it is `invalid_frame`. */
  codes?: Readonly<Record<string, ErrorCode>>
  /** The answer may take long, and the next frames do not wait for it. */
  answersLater?: true
  /** Its requestId is that of an earlier frame which has no answer yet. */
  namesOpen?: true
  handle (connection: Connection, frame: Frame, services: SocketServices): Promise<void> | void
}

export type TierName = 'public' | 'agents' | 'dashboard' | 'v1'

/** A tier is data: who comes in, what they see, what they may send. */
export interface Tier {
  name: TierName
  options: ResolvedOptions['publicWs']
  /** How a connection says who it is; null where anybody may come. */
  handshake: TierHandshake | null
  /** Code with which a connection is closed that has not said so in time. */
  timeoutCode: number
  /** Whether a token may stand in the query of the upgrade. */
  takesQueryToken: boolean
  view: View
  handlers: ReadonlyMap<string, FrameHandler>
  /** Silence after which the server sends a protocol ping (ms). */
  protocolPingMs: number
}
