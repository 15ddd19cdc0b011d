import fastify from 'fastify'
import agentRegistry from '../dist/src/index.js'

/** @returns the AsyncAPI document of all tiers that a registry with default options serves */
export async function asyncapiDocument () {
  const app = fastify()
  await app.register(agentRegistry, { routes: { docs: true, v1: true } })
  const response = await app.inject('/asyncapi.json')
  await app.close()
  return response.json()
}
