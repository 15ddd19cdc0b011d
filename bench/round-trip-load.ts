// Two clients in a process of their own that exchange direct messages through a server.
import type { ClientProtocolName } from './client-protocols.js'
import { connectClient } from './connect.js'
import { frameText } from './frames.js'
import type { LightClient } from './light-client.js'
import { percentile } from './statistics.js'

const [protocol, portText] = process.argv.slice(2) as [ClientProtocolName, string]
const port = Number(portText)

/** Opens the two clients: their names at the server, and their tokens. */
export interface OpenCommand { names: [string, string], tokens: [string, string], data: unknown }
export interface RunCommand { ms: number }
/** Times in milliseconds. */
export interface RunResult { count: number, p50: number, p99: number }
type Command = OpenCommand | RunCommand

let first: LightClient
let message = ''

const isDirect = (text: Buffer) => text.toString('latin1', 0, 16) === '{"type":"direct"'

async function open ({ names: [a, b], tokens: [tokenA, tokenB], data }: OpenCommand): Promise<true> {
  first = await connectClient({ port, protocol, token: tokenA })
  const second = await connectClient({ port, protocol, token: tokenB })
  const answer = frameText(JSON.stringify({ type: 'send', to: a, data }))
  message = frameText(JSON.stringify({ type: 'send', to: b, data }))
  second.onText = text => { if (isDirect(text)) second.socket.write(answer, 'latin1') }
  return true
}

/** Sends each message when the answer to the one before has arrived. */
function run ({ ms }: RunCommand): Promise<RunResult> {
  const times: number[] = []
  const end = performance.now() + ms
  return new Promise(resolve => {
    let started = performance.now()
    first.onText = text => {
      if (!isDirect(text)) return
      const now = performance.now()
      times.push(now - started)
      if (now > end) return resolve({ count: times.length, p50: percentile(times, 0.5), p99: percentile(times, 0.99) })
      started = now
      first.socket.write(message, 'latin1')
    }
    first.socket.write(message, 'latin1')
  })
}

process.on('message', async (command: Command) => { process.send!('ms' in command ? await run(command) : await open(command)) })
process.on('disconnect', () => process.exit(0))
process.send!({ port: 0 })
