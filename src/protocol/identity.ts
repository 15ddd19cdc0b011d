import { createRequire } from 'node:module'

const packageJson = createRequire(import.meta.url)('fastify-agent-registry/package.json') as { name: string, version: string }

/** This package. */
export const implementation = { name: packageJson.name, version: packageJson.version }

/** The protocol that existing clients look for, and its version. */
export const protocol = { name: 'ARCP', title: 'ARCP (Agent Registry & Control Protocol)', version: '2.1.2' }
