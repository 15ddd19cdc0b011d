import { Cursor } from '../../registry/feed/cursor.js'
import { WatchFrame } from '../../protocol/frames/common.js'
import { revisionText } from '../../registry/render.js'
import { frames } from '../feed-frames.js'
import { Watcher } from '../watcher.js'
import type { FrameHandler } from '../tiers.js'

/** Starts the feed of changes on this connection, from `since` or from now. A second `watch` replaces the first. */
export const watch: FrameHandler = {
  schema: WatchFrame,
  handle (connection, frame, { registry, source, readers }) {
    const { requestId, since, snapshot, filter = {} } = frame as WatchFrame
    const known = since === undefined ? registry.replica.revision : registry.positionOf(since)
    const position = snapshot ? registry.replica.revision : known ?? registry.replica.revision
    const cursor = new Cursor({ source, scope: { view: connection.tier.view, filter }, encoding: frames, position })
    const watcher = new Watcher({ connection, cursor, readers })
    if (connection.watcher) readers.delete(connection.watcher)
    connection.watcher = watcher
    readers.add(watcher)
    connection.sendFrame({ type: 'ack', requestId, revision: revisionText(registry.replica.epoch, position) })
    if (known === undefined) cursor.restart()
    else if (snapshot) cursor.snapshot()
    watcher.pump()
  }
}
