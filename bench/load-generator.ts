// Many clients of one server, in a process of their own. Reports when all of them have received the expected events.
import type { ClientProtocolName } from './client-protocols.js'
import { connectClient } from './connect.js'
import { frameText } from './frames.js'
import type { LightClient } from './light-client.js'
import { Pipeline, type PipelineCommand } from './pipeline.js'

const [protocol, portText] = process.argv.slice(2) as [ClientProtocolName, string]
const port = Number(portText)

/** Opens clients, at most `concurrency` at a time, with the tokens in turn. */
export interface OpenCommand { open: number, tokens?: string[], concurrency?: number }
export interface OpenResult { ms: number, refused: number }
/** Number of events that each client receives before a delivery is reported. */
export interface ExpectCommand { expect: number }
/** Opens one more client, which publishes on command and is not counted. */
export interface PublisherCommand { publisher: ClientProtocolName, token: string }
/** Sends a frame `times` times in one write; each of the other clients expects as many events. */
export interface PublishCommand { publish: string, times: number }
/** Bytes of all events, and the time at which each client had received all of its own (ms of the clock of all processes). */
export interface Delivery { bytes: number, times: number[] }
type CommandWithoutResponse = ExpectCommand | PublishCommand
type Command = CommandWithoutResponse | OpenCommand | PublisherCommand | PipelineCommand | 'destroy'

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

function count (counter: { events: number }, events: number, size: number) {
  counter.events += events
  bytes += size
  if (counter.events < expected) return
  counter.events -= expected
  times.push(nowMs())
  if (--missing > 0) return
  const delivery: Delivery = { bytes, times }
  expectNext()
  process.send!(delivery)
}

async function openOne (token: string): Promise<void> {
  const counter = { events: 0 }
  const onEvents = (events: number, size: number) => { count(counter, events, size) }
  const onClose = (client: LightClient) => { clients.delete(client) }
  clients.add(await connectClient({ port, protocol, token, onEvents, onClose }))
}

async function open ({ open: amount, tokens = [''], concurrency = 200 }: OpenCommand): Promise<OpenResult> {
  const started = performance.now()
  let next = 0
  let refused = 0
  async function openInTurn () {
    while (next < amount) await openOne(tokens[next++ % tokens.length]!).catch(() => { refused++ })
  }
  await Promise.all(Array.from({ length: concurrency }, openInTurn))
  expectNext()
  return { ms: performance.now() - started, refused }
}

async function destroy (): Promise<true> {
  const all = [...clients]
  const closed = all.map(client => new Promise(resolve => client.socket.once('close', resolve)))
  for (const client of all) client.destroy()
  await Promise.all(closed)
  return true
}

let pipelines: Pipeline[] | undefined

async function pipeline ({ window, ms }: PipelineCommand) {
  pipelines ??= await Promise.all(Array.from(clients, client => Pipeline.on(client)))
  const started = performance.now()
  const acks = await Promise.all(pipelines.map(each => each.run(window, started + ms)))
  return { acks: acks.reduce((sum, each) => sum + each, 0), ms: performance.now() - started }
}

let publisher: LightClient | undefined

function publish ({ publish: text, times }: PublishCommand) {
  expected = times
  publisher!.socket.write(frameText(text).repeat(times), 'latin1')
}

async function responseTo (command: Exclude<Command, CommandWithoutResponse>): Promise<unknown> {
  if (command === 'destroy') return destroy()
  if ('open' in command) return open(command)
  if ('window' in command) return pipeline(command)
  publisher = await connectClient({ port, protocol: command.publisher, token: command.token })
  return true
}

process.on('message', async (command: Command) => {
  if (typeof command === 'object' && 'expect' in command) expected = command.expect
  else if (typeof command === 'object' && 'publish' in command) publish(command)
  else process.send!(await responseTo(command))
})
process.on('disconnect', () => process.exit(0))
process.send!({ port: 0 })
