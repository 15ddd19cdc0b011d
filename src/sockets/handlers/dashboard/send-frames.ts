import type { Dashboard } from '../../../dashboard/dashboard.js'
import type { DataFrameType } from '../../../dashboard/frame.js'
import type { Connection } from '../../connection.js'

/** Sends data frames of now to one dashboard. Looking changes nothing for the others. */
export function sendFrames (connection: Connection, dashboard: Dashboard, types: readonly DataFrameType[]): void {
  for (const type of types) {
    const text = dashboard.frame(type)
    if (text !== null) connection.send(text)
  }
}
