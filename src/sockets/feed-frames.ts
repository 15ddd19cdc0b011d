import { listOf, pageOf, type Encoding } from '../registry/feed/delta.js'
import { EncodedMessage } from '../protocol/encoded-message.js'

/** What a watcher is owed, as frames of the WebSocket tiers. */
export const frames: Encoding<EncodedMessage> = {
  name: 'frames',
  changes: changes => new EncodedMessage(`{"type":"agents_delta","changes":${listOf(changes)}}`),
  page: page => new EncodedMessage(`{"type":"agents_snapshot",${pageOf(page)}}`),
  resync: revision => new EncodedMessage(`{"type":"resync","revision":"${revision}"}`),
  bookmark: bookmark => new EncodedMessage(JSON.stringify({ type: 'bookmark', ...bookmark }))
}
