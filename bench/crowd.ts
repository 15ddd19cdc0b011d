// Many clients of one server in a process of their own: opens them, and says when all of them have heard of what happened.
import type { DialectName } from './dialects.js'
import { enter } from './enter.js'
import { frameText } from './frames.js'
import type { LightClient } from './light-client.js'
import { Pipeline, type PipelineWish } from './pipeline.js'

const [dialectName, portText] = process.argv.slice(2)
const port = Number(portText)
const dialect = dialectName as DialectName

/** `tokens` are given out in turn; at most `opening` connections are being opened at a time. */
export interface OpenWish { open: number, tokens?: string[], opening?: number }
export interface Opened { ms: number, refused: number }
/** Events that each client hears before that is told. */
export interface ExpectWish { expect: number }
/** One client more, which is not counted and says something when it is to. */
export interface SpeakerWish { speaker: DialectName, token: string }
/** What it says, so many times in one write; the others hear as many events. */
export interface SayWish { say: string, times: number }
/** Bytes of what was heard, and when each client had heard all of it (ms of the clock that all processes share). */
export interface Heard { bytes: number, times: number[] }
type Silent = ExpectWish | SayWish
type Wish = Silent | OpenWish | SpeakerWish | PipelineWish | 'destroy'

const clients = new Set<LightClient>()
let expected = 1
let missing = 0
let bytes = 0
let times: number[] = []

const nowMs = () => Number(process.hrtime.bigint()) / 1e6

function expectNext () {
  missing = clients.size
  bytes = 0
  times = []
}

function count (client: { events: number }, events: number, size: number) {
  client.events += events
  bytes += size
  if (client.events < expected) return
  client.events -= expected
  times.push(nowMs())
  if (--missing > 0) return
  const heard: Heard = { bytes, times }
  expectNext()
  process.send!(heard)
}

async function openOne (token: string): Promise<void> {
  const tally = { events: 0 }
  const onClose = (client: LightClient) => { clients.delete(client) }
  clients.add(await enter({ port, dialect, token, onEvents: (events, size) => { count(tally, events, size) }, onClose }))
}

async function open ({ open: amount, tokens = [''], opening = 200 }: OpenWish): Promise<Opened> {
  const started = performance.now()
  let next = 0
  let refused = 0
  async function openInTurn () {
    while (next < amount) await openOne(tokens[next++ % tokens.length]!).catch(() => { refused++ })
  }
  await Promise.all(Array.from({ length: opening }, openInTurn))
  expectNext()
  return { ms: performance.now() - started, refused }
}

async function destroy (): Promise<true> {
  const all = [...clients]
  const gone = all.map(client => new Promise(resolve => client.socket.once('close', resolve)))
  for (const client of all) client.destroy()
  await Promise.all(gone)
  return true
}

let pipelines: Pipeline[] | undefined

async function pipeline ({ window, ms }: PipelineWish) {
  pipelines ??= await Promise.all(Array.from(clients, client => Pipeline.on(client)))
  const started = performance.now()
  const answers = await Promise.all(pipelines.map(each => each.run(window, started + ms)))
  return { answers: answers.reduce((sum, each) => sum + each, 0), ms: performance.now() - started }
}

let speaker: LightClient | undefined

function say ({ say: text, times }: SayWish) {
  expected = times
  speaker!.socket.write(frameText(text).repeat(times), 'latin1')
}

async function answerTo (wish: Exclude<Wish, Silent>): Promise<unknown> {
  if (wish === 'destroy') return destroy()
  if ('open' in wish) return open(wish)
  if ('window' in wish) return pipeline(wish)
  speaker = await enter({ port, dialect: wish.speaker, token: wish.token })
  return true
}

process.on('message', async (wish: Wish) => {
  if (typeof wish === 'object' && 'expect' in wish) expected = wish.expect
  else if (typeof wish === 'object' && 'say' in wish) say(wish)
  else process.send!(await answerTo(wish))
})
process.on('disconnect', () => process.exit(0))
process.send!({ port: 0 })
