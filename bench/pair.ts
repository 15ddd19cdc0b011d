// Two clients in a process of their own who say something to each other by a server: how long it takes there and back.
import type { DialectName } from './dialects.js'
import { enter } from './enter.js'
import { frameText } from './frames.js'
import type { LightClient } from './light-client.js'
import { percentile } from './statistics.js'

const [dialect, portText] = process.argv.slice(2) as [DialectName, string]
const port = Number(portText)

/** Their names, and what they show to get in. */
export interface PairWish { names: [string, string], tokens: [string, string], data: unknown }
export interface TalkWish { talk: number }
/** In milliseconds. */
export interface Talked { count: number, p50: number, p99: number }
type Wish = PairWish | TalkWish

let first: LightClient
let words = ''

const isDirect = (text: Buffer) => text.toString('latin1', 0, 16) === '{"type":"direct"'

async function meet ({ names: [a, b], tokens: [tokenA, tokenB], data }: PairWish): Promise<true> {
  first = await enter({ port, dialect, token: tokenA })
  const second = await enter({ port, dialect, token: tokenB })
  const answer = frameText(JSON.stringify({ type: 'send', to: a, data }))
  words = frameText(JSON.stringify({ type: 'send', to: b, data }))
  second.onText = text => { if (isDirect(text)) second.socket.write(answer, 'latin1') }
  return true
}

/** What is said waits for the answer to what was said before. */
function talk ({ talk: ms }: TalkWish): Promise<Talked> {
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
      first.socket.write(words, 'latin1')
    }
    first.socket.write(words, 'latin1')
  })
}

process.on('message', async (wish: Wish) => { process.send!('talk' in wish ? await talk(wish) : await meet(wish)) })
process.on('disconnect', () => process.exit(0))
process.send!({ port: 0 })
