import type { Static, TSchema } from '@sinclair/typebox'
import type { Dashboard } from '../../dashboard/dashboard.js'
import type { Clock } from '../../lib/clock.js'
import type { Messaging } from '../../messaging/messaging.js'
import type { ErrorCode } from '../../protocol/codes.js'
import { fieldErrors, matches } from '../../protocol/validation.js'
import type { Enrollment } from '../../registry/enrollment.js'
import type { View } from '../../registry/render.js'
import type { Registry } from '../../registry/registry.js'
import type { Connection } from '../connection.js'
import type { Handshake } from '../handshake.js'
import type { Watches } from '../watches.js'

/** The services and the part of the tier that handlers use. */
export interface HandlerContext {
  readonly registry: Registry
  readonly enrollment: Enrollment
  readonly messaging: Messaging
  readonly dashboard: Dashboard
  readonly watches: Watches
  readonly view: View
  readonly handshake: Handshake | null
  readonly now: Clock
}

interface HandlerOptions {
  /** The error message for every frame that does not match the schema, where existing clients expect a fixed text. */
  readonly invalid?: string
  /** Error codes for members that do not match the schema, by JSON pointer; `invalid_frame` for all others. */
  readonly codes?: Readonly<Record<string, ErrorCode>>
  /** The reply may take long: later frames of the connection are handled before it is sent. */
  readonly answersLater?: true
  /** `requestId` refers to an earlier frame that has no reply yet. */
  readonly namesOpen?: true
}

/** Handles the frames of one `type`. */
export interface FrameHandler extends HandlerOptions {
  readonly schema: TSchema
  /** Validates and handles a frame. An exception or rejection is sent to the client as an `error` frame. */
  readonly handle: (connection: Connection, frame: unknown, context: HandlerContext) => Promise<void> | void
}

type Handle<Frame> = (connection: Connection, frame: Frame, context: HandlerContext) => Promise<void> | void

/** Creates a handler whose `handle` receives only frames that match `schema`; other frames get an `error` reply. */
export function defineHandler<T extends TSchema> (schema: T, handle: Handle<Static<T>>, options: HandlerOptions = {}): FrameHandler {
  function handleIfValid (connection: Connection, frame: unknown, context: HandlerContext) {
    if (matches(schema, frame)) return handle(connection, frame, context)
    const [error = { path: '', message: 'Invalid frame' }] = fieldErrors(schema, frame)
    connection.fail(options.codes?.[error.path] ?? 'invalid_frame', options.invalid ?? `${error.path}: ${error.message}`, frame)
  }
  return { ...options, schema, handle: handleIfValid }
}

/** A table of handlers by frame type. */
export function handlersByType (handlers: Readonly<Record<string, FrameHandler>>): ReadonlyMap<string, FrameHandler> {
  return new Map(Object.entries(handlers))
}
