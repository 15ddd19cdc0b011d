import createError from '@fastify/error'

/** A hook of the host application did not settle in time. */
export const HookTimeoutError = createError('AGENT_REGISTRY_HOOK_TIMEOUT', "The hook '%s' did not settle within %s ms", 503)

/**
 * Calls a hook of the host application and resolves with its result. An error that the hook throws is passed on.
 * A result that arrives after the timeout is discarded.
 * @throws AGENT_REGISTRY_HOOK_TIMEOUT if the hook has not settled after `timeoutMs`
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
