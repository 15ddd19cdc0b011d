import { createRequire } from 'node:module'

const packageJson = createRequire(import.meta.url)('fastify-agent-registry/package.json') as { name: string, version: string }

/** Name and version of this package. */
export const implementation = { name: packageJson.name, version: packageJson.version }

/** Name and version of the protocol that existing clients expect. */
export const protocol = { name: 'ARCP', title: 'ARCP (Agent Registry & Control Protocol)', version: '2.1.2' }
