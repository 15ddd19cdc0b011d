import { deltaList, pageMembers, type FeedEncoding } from '../registry/feed/delta.js'
import { EncodedMessage } from '../protocol/encoded-message.js'

/** What a watcher is owed, as frames of the WebSocket tiers. */
export const frames: FeedEncoding<EncodedMessage> = {
  name: 'frames',
  changes: deltas => new EncodedMessage(`{"type":"agents_delta","changes":${deltaList(deltas)}}`),
  page: page => new EncodedMessage(`{"type":"agents_snapshot",${pageMembers(page)}}`),
  resync: revision => new EncodedMessage(`{"type":"resync","revision":"${revision}"}`),
  bookmark: bookmark => new EncodedMessage(JSON.stringify({ type: 'bookmark', ...bookmark }))
}
