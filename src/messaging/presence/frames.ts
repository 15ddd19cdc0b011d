import { EncodedMessage } from '../../protocol/encoded-message.js'
import { shownName, tierPlace } from '../../protocol/channel-names.js'
import { channelOf } from '../../storage/message-broker.js'
import type { Dialect } from '../../protocol/channel-names.js'
import type { PlaceDelta, Present } from './view.js'

/** Leaves room for the rest of a frame, which common clients limit to 1 MiB. */
const maxFrameChars = 250_000

const nameOf = (place: string, dialect: Dialect) => shownName(channelOf(place) ?? place, dialect)

function agentIdOf (metadata: string): string {
  const { agent_id: agentId } = JSON.parse(metadata) as { agent_id?: string }
  return agentId === undefined ? '' : `,"agent_id":${JSON.stringify(agentId)}`
}

function joinedText (place: string, { peerId, metadata }: Present): string {
  const status = place === tierPlace ? `${agentIdOf(metadata)},"status":"online"` : ''
  return `{"peerId":${JSON.stringify(peerId)}${status},"metadata":${metadata}}`
}

function leftText (place: string, { peerId, metadata }: Present): string {
  const status = place === tierPlace ? `${agentIdOf(metadata)},"status":"offline"` : ''
  return `{"peerId":${JSON.stringify(peerId)}${status}}`
}

/** Splits texts into runs that are short enough for a frame; at least one run. */
function runsOf (texts: readonly string[]): string[][] {
  const runs: string[][] = [[]]
  let size = 0
  for (const text of texts) {
    size += text.length
    if (size > maxFrameChars && runs.at(-1)!.length > 0) {
      runs.push([])
      size = text.length
    }
    runs.at(-1)!.push(text)
  }
  return runs
}

export interface PresenceFrame {
  readonly place: string
  readonly revision: number
  /** Members that are shown or more than fit. */
  readonly joined: readonly Present[]
}

/** `presence` frames that tell of a change, as many as it takes. */
export function deltaFrames (place: string, { revision, joined, left }: PlaceDelta, dialect: Dialect): EncodedMessage[] {
  const head = `{"type":"presence","channel":${JSON.stringify(nameOf(place, dialect))},"revision":${revision}`
  const come = runsOf(joined.map(present => joinedText(place, present)))
  const gone = runsOf(left.map(present => leftText(place, present)))
  return Array.from({ length: Math.max(come.length, gone.length) }, (_, index) => new EncodedMessage(`${head},"joined":[${come[index] ?? ''}],"left":[${gone[index] ?? ''}]}`))
}

export interface Snapshot {
  readonly frame: EncodedMessage
  /** How many of those who were given are in it. */
  readonly shown: number
}

/** The `presence` frame that says who is there. One that could not take everybody says so, and how many there are. */
export function snapshotFrame ({ place, revision, joined }: PresenceFrame, dialect: Dialect, requestId?: string): Snapshot {
  const [run = []] = runsOf(joined.map(present => joinedText(place, present)))
  const cut = run.length < joined.length ? `,"truncated":true,"total_count":${joined.length}` : ''
  const id = requestId === undefined ? '' : `,"requestId":${JSON.stringify(requestId)}`
  const text = `{"type":"presence"${id},"channel":${JSON.stringify(nameOf(place, dialect))},"revision":${revision},"snapshot":true${cut},"joined":[${run}],"left":[]}`
  return { frame: new EncodedMessage(text), shown: run.length }
}
