import { StoreRefusedError } from '../../errors.js'

const restore = 'Restore this folder from a backup, or move it away to start with an empty one.'

/** Why a store is not opened: where it is, what was found, and what to do. Nothing of it has been changed. */
export function refusal (path: string, finding: string, advice: string) {
  return new StoreRefusedError(path, finding, advice)
}

export const damaged = (path: string, finding: string) => refusal(path, finding, restore)
