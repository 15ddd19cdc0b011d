import { isObject, isShallow } from '../lib/json.js'
import type { ConfigAnswer, DashboardConfig } from '../protocol/schemas/dashboard.js'
import { isPoisonousKey } from '../protocol/schemas/common.js'

const leastLogEntries = 10
const maxSettingsBytes = 16_384
const maxDepth = 8
const zoneName = /^[A-Za-z][A-Za-z0-9_+/-]{0,63}$/

export interface SettingsOptions {
  /** Silence after which a dashboard is pinged (ms). */
  pingIntervalMs: number
  /** Log entries that are kept, and the length of their messages. */
  logCapacity: number
  logMessageLength: number
}

const refused: ConfigAnswer = { status: 'error', message: 'Invalid payload' }

/** The settings that the pages of all admins share. */
export class UiSettings {
  readonly #options: SettingsOptions
  #ui: Record<string, unknown> = {}

  constructor (options: SettingsOptions) {
    this.#options = options
  }

  /** The answer to `GET /dashboard/config`. @param tz a time zone, given back when it may be one */
  config (tz?: string): DashboardConfig {
    const { pingIntervalMs, logCapacity, logMessageLength } = this.#options
    return {
      timezone: tz !== undefined && zoneName.test(tz) ? tz : 'UTC',
      ws_ping_interval_ms: pingIntervalMs,
      log_buffer_maxlen: logCapacity,
      log_message_maxlen: logMessageLength,
      ui: this.#ui
    }
  }

  /**
   * The answer to `POST /dashboard/config`. Members of `ui` that are not named keep their value, unknown ones are kept
   * as they come; more than 16 KiB in all is refused like what is not an object.
   */
  update (body: unknown): ConfigAnswer {
    if (!isObject(body) || !isObject(body.ui) || !isShallow(body.ui, maxDepth)) return refused
    const given = Object.entries(body.ui).filter(([name]) => !isPoisonousKey(name))
    const ui = this.#clamped({ ...this.#ui, ...Object.fromEntries(given) })
    if (Buffer.byteLength(JSON.stringify(ui)) > maxSettingsBytes) return refused
    this.#ui = ui
    return { status: 'ok', ui }
  }

  #clamped (ui: Record<string, unknown>): Record<string, unknown> {
    if (!('maxLogEntries' in ui)) return ui
    const { maxLogEntries, ...others } = ui
    const wanted = typeof maxLogEntries === 'string' ? Number.parseInt(maxLogEntries, 10) : maxLogEntries
    if (typeof wanted !== 'number' || !Number.isFinite(wanted)) return others
    return { ...others, maxLogEntries: Math.min(this.#options.logCapacity, Math.max(leastLogEntries, Math.trunc(wanted))) }
  }
}
