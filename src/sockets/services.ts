import type { Admission } from '../limits/admission.js'
import type { Authority } from '../auth/authority.js'
import type { Clock } from '../lib/clock.js'
import type { Dashboard } from '../dashboard/dashboard.js'
import type { Messaging } from '../messaging/messaging.js'
import type { ResolvedOptions } from '../options.js'
import type { Subscribers } from '../registry/feed/subscribers.js'
import type { Feed } from '../registry/feed/change-log.js'
import type { LongRequests } from '../limits/long-requests.js'
import type { Registry } from '../registry/registry.js'
import type { Flusher, Traffic } from './outbound.js'
import type { FrameRates } from '../limits/frame-rate.js'
import type { Hub } from './hub.js'
import type { ListUpdates } from './agent-lists.js'
import type { SocketLiveness } from './liveness.js'
import type { ConnectionSlots } from '../limits/connection-slots.js'
import type { Throttle } from './throttle.js'
import type { TierName } from '../protocol/frames/catalogues.js'
import type { Enrollment } from '../registry/enrollment.js'

/** What connections and their handlers work with. */
export interface SocketServices {
  readonly registry: Registry
  readonly authority: Authority
  readonly enrollment: Enrollment
  readonly options: ResolvedOptions
  readonly feed: Feed
  readonly hub: Hub
  readonly slots: ConnectionSlots
  readonly rates: FrameRates
  readonly throttle: Throttle
  readonly subscribers: Subscribers
  readonly longRequests: LongRequests
  /** Of sockets and streams. */
  readonly admission: Admission
  readonly lists: ListUpdates
  readonly liveness: SocketLiveness
  readonly dashboard: Dashboard
  readonly messaging: Messaging
  readonly flusher: Flusher
  readonly traffic: Readonly<Record<TierName, Traffic>>
  readonly now: Clock
  readonly onError: (error: unknown) => void
}
