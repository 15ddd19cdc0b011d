// Many clients of one server in a process of their own: opens them, and says when all of them have heard of what happened.
import { dialects, type Dialect, type DialectName } from './dialects.js'
import { LightClient } from './light-client.js'
import { Pipeline, type PipelineWish } from './pipeline.js'

const [dialectName, portText] = process.argv.slice(2)
const port = Number(portText)
const dialect: Dialect = dialects[dialectName as DialectName]

/** `tokens` are given out in turn; at most `opening` connections are being opened at a time. */
export interface OpenWish { open: number, tokens?: string[], opening?: number }
export interface Opened { ms: number, refused: number }
/** Events that each client hears before that is told. */
export interface ExpectWish { expect: number }
/** Bytes of what was heard, and when each client had heard all of it (ms of the clock that all processes share). */
export interface Heard { bytes: number, times: number[] }
type Wish = OpenWish | ExpectWish | PipelineWish | 'destroy'

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

/** Resolves when the client is where it listens. */
async function openOne (token: string): Promise<void> {
  const client = await LightClient.open(port, dialect.path)
  const tally = { events: 0 }
  const isReady = new Promise<void>((resolve, reject) => {
    client.onClose = () => {
      clients.delete(client)
      reject(new Error('closed before it was ready'))
    }
    client.onText = text => {
      const meaning = dialect.hear(client, text, token)
      if (meaning === 'ready') resolve()
      else if (meaning > 0) count(tally, meaning, text.length)
    }
    dialect.begin?.(client, token)
    if (dialect.isReady) resolve()
  })
  clients.add(client)
  await isReady
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

async function answerTo (wish: Exclude<Wish, ExpectWish>): Promise<unknown> {
  if (wish === 'destroy') return destroy()
  return 'open' in wish ? open(wish) : pipeline(wish)
}

process.on('message', async (wish: Wish) => {
  if (typeof wish === 'object' && 'expect' in wish) expected = wish.expect
  else process.send!(await answerTo(wish))
})
process.on('disconnect', () => process.exit(0))
process.send!({ port: 0 })
