import type { MessageBroker } from '../../storage/message-broker.js'
import type { ProcessMessages } from '../process-messages.js'

/** From the process of a requester to the process of an agent. `rid` names an offer. */
export type RequesterMessage =
  | { readonly op: 'offer', readonly rid: string, readonly to: string, readonly from: string, readonly deadline: number }
  | { readonly op: 'withdraw', readonly rid: string, readonly to: string }
  /** Whether the response `id` came from the current assignee of an open request. */
  | { readonly op: 'verdict', readonly id: number, readonly counts: boolean }

/** A response of the agent `by`. Its process waits for the verdict on `id`. */
export type AgentResponse = { readonly rid: string, readonly by: string, readonly id: number } & ResponseContent

export type ResponseContent =
  | { readonly op: 'accept' }
  | { readonly op: 'reply' }
  | { readonly op: 'reject', readonly code: string, readonly message: string }

/** From the process of an agent to the process of a requester. */
export type ResponderMessage =
  | AgentResponse
  /** The agent has no connection to this process that takes requests. */
  | { readonly op: 'declined', readonly rid: string }

/** @param data JSON text, or empty */
type RequestChannelListener<Message> = (from: string, message: Message, data: string) => void

/** Schedules as `queueMicrotask` does, at a lower cost. */
const resolved = Promise.resolve()
const topics = { requester: 'request', responder: 'response' } as const

/**
 * Messages between the processes of requesters and agents, which may be the same process: at most once, in order, and
 * never from within a call.
 */
export class RequestChannel {
  readonly #process: string
  readonly #processMessages: ProcessMessages
  #onRequesterMessage: RequestChannelListener<RequesterMessage> | undefined
  #onResponderMessage: RequestChannelListener<ResponderMessage> | undefined

  constructor ({ process }: MessageBroker, processMessages: ProcessMessages) {
    this.#process = process
    this.#processMessages = processMessages
    processMessages.on(topics.requester, (from, body) => { this.#onRequesterMessage?.(from, ...parseBody<RequesterMessage>(body)) })
    processMessages.on(topics.responder, (from, body) => { this.#onResponderMessage?.(from, ...parseBody<ResponderMessage>(body)) })
  }

  onRequesterMessage (listener: RequestChannelListener<RequesterMessage>): void {
    this.#onRequesterMessage = listener
  }

  onResponderMessage (listener: RequestChannelListener<ResponderMessage>): void {
    this.#onResponderMessage = listener
  }

  sendToResponder (process: string, message: RequesterMessage, data = ''): void {
    if (process === this.#process) resolved.then(() => { this.#onRequesterMessage?.(process, message, data) })
    else this.#processMessages.send(process, topics.requester, bodyOf(message, data))
  }

  sendToRequester (process: string, message: ResponderMessage, data = ''): void {
    if (process === this.#process) resolved.then(() => { this.#onResponderMessage?.(process, message, data) })
    else this.#processMessages.send(process, topics.responder, bodyOf(message, data))
  }
}

/** The data stays JSON text: no process in between parses it. */
function bodyOf (message: RequesterMessage | ResponderMessage, data: string): string {
  return `${JSON.stringify(message)}\n${data}`
}

function parseBody<Message> (body: string): [message: Message, data: string] {
  const end = body.indexOf('\n')
  return [JSON.parse(body.slice(0, end)), body.slice(end + 1)]
}
