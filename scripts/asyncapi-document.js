import fastify from 'fastify'
import agentRegistry from '../dist/src/index.js'

/** The AsyncAPI document of all tiers, as a registry with the default options serves it. */
export async function asyncapiDocument () {
  const app = fastify()
  await app.register(agentRegistry, { routes: { docs: true, v1: true } })
  const response = await app.inject('/asyncapi.json')
  await app.close()
  return response.json()
}
