import { listOf, pageOf, type Encoding } from '../registry/feed/delta.js'
import { Outgoing } from '../protocol/encoded-message.js'

/** What a watcher is owed, as frames of the WebSocket tiers. */
export const frames: Encoding<Outgoing> = {
  name: 'frames',
  changes: changes => new Outgoing(`{"type":"agents_delta","changes":${listOf(changes)}}`),
  page: page => new Outgoing(`{"type":"agents_snapshot",${pageOf(page)}}`),
  resync: revision => new Outgoing(`{"type":"resync","revision":"${revision}"}`),
  bookmark: bookmark => new Outgoing(JSON.stringify({ type: 'bookmark', ...bookmark }))
}
