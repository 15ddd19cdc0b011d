import type { Dashboard } from '../../../dashboard/dashboard.js'
import type { DataFrameType } from '../../../dashboard/frame.js'
import type { Connection } from '../../connection.js'

/**
 * Sends data frames of now to one dashboard. Looking changes nothing for the others.
 * @returns those that could not be made: a frame that fails keeps back none of the others
 */
export function sendFrames (connection: Connection, dashboard: Dashboard, types: readonly DataFrameType[]): DataFrameType[] {
  const failed: DataFrameType[] = []
  for (const type of types) {
    const text = dashboard.frame(type)
    if (text === undefined) failed.push(type)
    else if (text !== null) connection.send(text)
  }
  return failed
}
