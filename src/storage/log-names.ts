const channelPrefix = 'c:'

/** The channel of a log or place; patterns concern no others. */
export function channelOf (name: string): string | undefined {
  return name.startsWith(channelPrefix) ? name.slice(channelPrefix.length) : undefined
}

export function nameOfChannel (channel: string): string {
  return channelPrefix + channel
}

/** One text of three, for each three another one. */
export function sendingOf (log: string, from: string, msgId: string): string {
  return `${log.length}:${from.length}:${log}${from}${msgId}`
}
