import type { MessageBroker } from '../../storage/message-broker.js'
import type { Signals } from '../signals.js'

/** What the process of the one who asks says of an offer, which `rid` names, to that of the one who is asked. */
export type Errand =
  | { readonly op: 'offer', readonly rid: string, readonly to: string, readonly from: string, readonly deadline: number }
  | { readonly op: 'withdraw', readonly rid: string, readonly to: string }
  /** Whether an answer counts. */
  | { readonly op: 'verdict', readonly answer: number, readonly counts: boolean }

/** What comes back: `by` is who says so, `answer` the number under which its process waits for the verdict. */
export type Word =
  /** Nobody by that name serves through this process. */
  | { readonly op: 'declined', readonly rid: string }
  | Answer
export type Answer = { readonly rid: string, readonly by: string, readonly answer: number } & Content
export type Content =
  | { readonly op: 'accept' }
  | { readonly op: 'reply' }
  | { readonly op: 'reject', readonly code: string, readonly message: string }

/** One of the two sides. `data` is JSON text, or nothing. */
export type LineListener<S> = (from: string, said: S, data: string) => void

/** Calls back as `queueMicrotask` does, for less. */
const later = Promise.resolve()
const topics = { errand: 'ask', word: 'answer' } as const

/** Between those who ask and those who are asked, in one process or in two: at most once, in order, and never from inside a call. */
export class RequestLine {
  readonly #broker: MessageBroker
  readonly #signals: Signals
  #onErrand: LineListener<Errand> | undefined
  #onWord: LineListener<Word> | undefined

  constructor (broker: MessageBroker, signals: Signals) {
    this.#broker = broker
    this.#signals = signals
    signals.on(topics.errand, (from, body) => { hear(from, body, this.#onErrand) })
    signals.on(topics.word, (from, body) => { hear(from, body, this.#onWord) })
  }

  onErrand (listener: LineListener<Errand>): void {
    this.#onErrand = listener
  }

  onWord (listener: LineListener<Word>): void {
    this.#onWord = listener
  }

  ask (process: string, errand: Errand, data = ''): void {
    const { process: own } = this.#broker
    if (process === own) later.then(() => { this.#onErrand?.(own, errand, data) })
    else this.#signals.send(process, topics.errand, textOf(errand, data))
  }

  answer (process: string, word: Word, data = ''): void {
    const { process: own } = this.#broker
    if (process === own) later.then(() => { this.#onWord?.(own, word, data) })
    else this.#signals.send(process, topics.word, textOf(word, data))
  }
}

/** Data stays text: nobody on the way has to read it. */
function textOf (said: Errand | Word, data: string): string {
  return `${JSON.stringify(said)}\n${data}`
}

function hear<S> (from: string, body: string, listener: LineListener<S> | undefined) {
  const end = body.indexOf('\n')
  listener?.(from, JSON.parse(body.slice(0, end)) as S, body.slice(end + 1))
}
