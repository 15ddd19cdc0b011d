import { dialects, type Dialect, type DialectName } from './dialects.js'
import { LightClient } from './light-client.js'

export interface Entrance {
  port: number
  dialect: DialectName
  token: string
  onEvents?: (events: number, bytes: number) => void
  onClose?: (client: LightClient) => void
}

/** Resolves when the client is where it listens. */
export async function enter ({ port, dialect: name, token, onEvents = () => {}, onClose = () => {} }: Entrance): Promise<LightClient> {
  const dialect: Dialect = dialects[name]
  const client = await LightClient.open(port, dialect.path)
  await new Promise<void>((resolve, reject) => {
    client.onClose = () => {
      onClose(client)
      reject(new Error('closed before it was ready'))
    }
    client.onText = text => {
      const meaning = dialect.hear(client, text, token)
      if (meaning === 'ready') resolve()
      else if (meaning > 0) onEvents(meaning, text.length)
    }
    dialect.begin?.(client, token)
    if (dialect.isReady) resolve()
  })
  return client
}
