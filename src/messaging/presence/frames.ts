import { agentsChannel, channelOfKey, formatChannel, type Dialect } from '../../protocol/channel-names.js'
import { EncodedMessage } from '../../protocol/encoded-message.js'
import type { OnlinePeer, PresenceDelta } from './presence-set.js'

/** A limit for the peers in one frame. It leaves room for the other members: common clients limit frames to 1 MiB. */
const maxFrameChars = 250_000

/** `presence` frames with the changes of a set, as many as they need. */
export function deltaFrames (setName: string, { revision, joined, left }: PresenceDelta, dialect: Dialect): EncodedMessage[] {
  const head = `{"type":"presence","channel":${channelText(setName, dialect)},"revision":${revision}`
  const joinedTexts = chunks(joined.map(peer => peerText(setName, peer, true)))
  const leftTexts = chunks(left.map(peer => peerText(setName, peer, false)))
  return Array.from({ length: Math.max(joinedTexts.length, leftTexts.length) }, (_, index) => {
    return new EncodedMessage(`${head},"joined":[${joinedTexts[index]?.join() ?? ''}],"left":[${leftTexts[index]?.join() ?? ''}]}`)
  })
}

/** The members of a set at a revision. */
export interface PresenceState {
  readonly setName: string
  readonly revision: number
  readonly members: readonly OnlinePeer[]
}

interface Snapshot {
  readonly frame: EncodedMessage
  /** The number of members in the frame: the first ones. */
  readonly shown: number
}

/** The `presence` frame with the members of a set. A frame that cannot hold all of them is `truncated` and has their number. */
export function snapshotFrame ({ setName, revision, members }: PresenceState, dialect: Dialect, requestId?: string): Snapshot {
  const [first = []] = chunks(members.map(peer => peerText(setName, peer, true)))
  const truncated = first.length < members.length ? `,"truncated":true,"total_count":${members.length}` : ''
  const id = requestId === undefined ? '' : `,"requestId":${JSON.stringify(requestId)}`
  const head = `{"type":"presence"${id},"channel":${channelText(setName, dialect)},"revision":${revision},"snapshot":true`
  return { frame: new EncodedMessage(`${head}${truncated},"joined":[${first.join()}],"left":[]}`), shown: first.length }
}

function channelText (setName: string, dialect: Dialect): string {
  return JSON.stringify(formatChannel(channelOfKey(setName) ?? setName, dialect))
}

function peerText (setName: string, { peerId, metadata }: OnlinePeer, isOnline: boolean): string {
  const status = setName === agentsChannel ? `${agentIdText(metadata)},"status":"${isOnline ? 'online' : 'offline'}"` : ''
  const metadataText = isOnline ? `,"metadata":${metadata}` : ''
  return `{"peerId":${JSON.stringify(peerId)}${status}${metadataText}}`
}

function agentIdText (metadata: string): string {
  const { agent_id: agentId }: { agent_id?: string } = JSON.parse(metadata)
  return agentId === undefined ? '' : `,"agent_id":${JSON.stringify(agentId)}`
}

/** Splits texts into chunks that each fit into a frame; at least one chunk. */
function chunks (texts: readonly string[]): string[][] {
  let chunk: string[] = []
  let size = 0
  const all = [chunk]
  for (const text of texts) {
    size += text.length
    if (size > maxFrameChars && chunk.length > 0) {
      chunk = []
      all.push(chunk)
      size = text.length
    }
    chunk.push(text)
  }
  return all
}
