import { WatchFrame } from '../../schemas/frames/common.js'
import { revisionText } from '../../registry/render.js'
import { Watcher } from '../watcher.js'
import type { FrameHandler } from '../tiers.js'

/** Starts the feed of changes on this connection, from `since` or from now. A second `watch` replaces the first. */
export const watch: FrameHandler = {
  schema: WatchFrame,
  handle (connection, frame, { registry, feed, watchers }) {
    const { requestId, since, snapshot, filter = {} } = frame as WatchFrame
    const known = since === undefined ? registry.replica.revision : registry.positionOf(since)
    const position = snapshot ? registry.replica.revision : known ?? registry.replica.revision
    if (connection.watcher) watchers.delete(connection.watcher)
    const watcher = new Watcher({ connection, scope: { view: connection.tier.view, filter }, registry, feed, position })
    connection.watcher = watcher
    watchers.add(watcher)
    connection.sendFrame({ type: 'ack', ...(requestId !== undefined && { requestId }), revision: revisionText(registry.replica.epoch, position) })
    if (known === undefined) watcher.resync()
    else if (snapshot) watcher.snapshot()
    watcher.pump()
  }
}
