import { HookTimeoutError } from '../errors.js'

/**
 * Calls a hook of the host and resolves with its answer; what it throws is passed on.
 * @throws AGENT_REGISTRY_HOOK_TIMEOUT when it has not settled after `timeoutMs`; what comes later is dropped.
 */
export async function callHook<T> (name: string, timeoutMs: number, hook: () => T | Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const timeout = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new HookTimeoutError(name, timeoutMs)), timeoutMs)
    timer.unref()
  })
  try {
    return await Promise.race([hook(), timeout])
  } finally {
    clearTimeout(timer)
  }
}
