import type { Static, TSchema } from '@sinclair/typebox'
import type { Dashboard } from '../dashboard/dashboard.js'
import type { Clock } from '../lib/clock.js'
import type { Messaging } from '../messaging/messaging.js'
import { type ErrorCode, errorOf } from '../protocol/codes.js'
import { fieldErrors, matches, PoisonousFrame, requestIdOf, typeText } from '../protocol/validation.js'
import type { Enrollment } from '../registry/enrollment.js'
import type { View } from '../registry/render.js'
import type { Registry } from '../registry/registry.js'
import type { Connection, FrameDispatcher } from './connection.js'
import type { Handshake } from './handshake.js'
import type { Watches } from './watches.js'
import { isProblem } from '../errors.js'
import { isObject } from '../lib/json.js'

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

interface DispatcherOptions {
  handlers: ReadonlyMap<string, FrameHandler>
  context: HandlerContext
  /** Writes an audit entry about a frame that was refused for lack of rights. */
  audit: (connection: Connection, text: string) => void
  onError: (error: unknown) => void
}

/** Passes the frames of one tier to their handlers, and the frames of unauthenticated connections to the handshake. */
export class Dispatcher implements FrameDispatcher {
  readonly #options: DispatcherOptions

  constructor (options: DispatcherOptions) {
    this.#options = options
  }

  namesOpenRequest (frame: unknown): boolean {
    return isObject(frame) && this.#handlerOf(frame.type)?.namesOpen === true
  }

  dispatch (connection: Connection, frame: unknown): Promise<void> | void {
    const { context } = this.#options
    if (!connection.isAuthenticated) return context.handshake?.receive(connection, frame)
    if (frame === undefined) return connection.fail('malformed_message', 'Invalid JSON format')
    if (frame instanceof PoisonousFrame) return connection.fail('malformed_message', 'A member has a forbidden name', frame)
    if (!isObject(frame)) return connection.fail('malformed_message', 'Expected a JSON object')
    const handler = this.#handlerOf(frame.type)
    if (!handler) return connection.fail('unknown_type', `Unknown message type: ${typeText(frame.type)}`, frame)
    const handling = handler.handle(connection, frame, context)
    return handling && handler.answersLater ? connection.inbound.replyLater(handling, requestIdOf(frame)) : handling
  }

  failed (connection: Connection, error: unknown, frame: unknown): void {
    if (isProblem(error) && error.statusCode === 403) this.#options.audit(connection, error.message)
    const known = errorOf(error)
    if (known) return connection.fail(known.code, error instanceof Error ? error.message : '', frame, known.extras)
    this.#options.onError(error)
    connection.fail('internal_error', 'Internal error', frame)
  }

  #handlerOf (type: unknown): FrameHandler | undefined {
    return typeof type === 'string' ? this.#options.handlers.get(type) : undefined
  }
}
