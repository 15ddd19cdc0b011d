import { clientProtocols, type ClientProtocol, type ClientProtocolName } from './client-protocols.js'
import { LightClient } from './light-client.js'

export interface ConnectOptions {
  port: number
  protocol: ClientProtocolName
  token: string
  onEvents?: (events: number, bytes: number) => void
  onClose?: (client: LightClient) => void
}

/** Resolves when the client is connected, authenticated and subscribed, as its protocol requires. */
export async function connectClient (options: ConnectOptions): Promise<LightClient> {
  const { port, protocol: name, token, onEvents = () => {}, onClose = () => {} } = options
  const protocol: ClientProtocol = clientProtocols[name]
  const client = await LightClient.open(port, protocol.path)
  await new Promise<void>((resolve, reject) => {
    client.onClose = () => {
      onClose(client)
      reject(new Error('closed before it was ready'))
    }
    client.onText = text => {
      const classification = protocol.classify(client, text, token)
      if (classification === 'ready') resolve()
      else if (classification > 0) onEvents(classification, text.length)
    }
    protocol.onOpen?.(client, token)
    if (protocol.readyOnOpen) resolve()
  })
  return client
}
