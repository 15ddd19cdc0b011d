import { isProblem } from '../errors.js'
import { isObject } from '../lib/json.js'
import { errorOf } from '../protocol/codes.js'
import { PoisonousFrame, requestIdOf, typeText } from '../protocol/validation.js'
import type { Connection, FrameDispatcher } from './connection.js'
import type { FrameHandler, HandlerContext } from './handlers/define.js'

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
