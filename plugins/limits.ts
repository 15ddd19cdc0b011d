import { BlockList, isIPv6 } from 'node:net'
import fp from 'fastify-plugin'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { OptionsError, problem, type ProblemError } from '../src/errors.js'
import type { ResolvedOptions } from '../src/options.js'

/** @throws AGENT_REGISTRY_INVALID_OPTIONS for a text that is neither an address nor a CIDR range */
function blockListOf (name: string, ranges: readonly string[]): BlockList {
  const list = new BlockList()
  for (const range of ranges) {
    const [, address = '', bits] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(range) ?? []
    const family = isIPv6(address) ? 'ipv6' : 'ipv4'
    try {
      if (bits === undefined) list.addAddress(address, family)
      else list.addSubnet(address, Number(bits), family)
    } catch {
      throw new OptionsError(`addresses.${name}: '${range}' is neither an address nor a CIDR range`)
    }
  }
  return list
}

function addressCheck ({ blocked, allowed, defaultDeny }: ResolvedOptions['addresses']) {
  const blockList = blockListOf('blocked', blocked)
  const allowList = blockListOf('allowed', allowed)
  if (blocked.length === 0 && !defaultDeny) return null
  return function isRefused (address: string): boolean {
    const family = isIPv6(address) ? 'ipv6' : 'ipv4'
    return blockList.check(address, family) || (defaultDeny && !allowList.check(address, family))
  }
}

function headerBytes (headers: readonly string[]): number {
  let sum = 0
  for (const text of headers) sum += text.length
  return sum
}

function queryParams (url: string): number {
  const start = url.indexOf('?')
  if (start < 0 || start === url.length - 1) return 0
  let count = 1
  for (let at = url.indexOf('&', start); at >= 0; at = url.indexOf('&', at + 1)) count++
  return count
}

/** The reason to refuse a request by its size, or undefined. */
function objectionTo (request: FastifyRequest, { maxHeaderBytes, maxQueryParams }: ResolvedOptions['limits']): ProblemError | undefined {
  const size = headerBytes(request.raw.rawHeaders ?? [])
  if (size > maxHeaderBytes) {
    const members = { header_size: size, max_header_size: maxHeaderBytes }
    return problem('headers-too-large', 'The headers are too large', { members })
  }
  const params = queryParams(request.url)
  if (params > maxQueryParams) {
    const members = { query_param_count: params, max_query_params: maxQueryParams }
    return problem('request-error', 'Too many query parameters', { members })
  }
}

/**
 * Rejects requests and upgrades from blocked addresses, or with oversized headers or too many query parameters, before the
 * body is parsed.
 */
export default fp(async function limits (scope: FastifyInstance, { options }: { options: ResolvedOptions }) {
  const { maxBodyBytes } = options.limits
  const isRefused = addressCheck(options.addresses)

  scope.addHook('onRoute', function limitBody (route) { route.bodyLimit ??= maxBodyBytes })

  scope.addHook('onRequest', function checkLimits (request, _reply, done) {
    if (isRefused?.(request.ip)) done(problem('insufficient-permissions', 'This address is not allowed'))
    else done(objectionTo(request, options.limits))
  })
}, { name: 'agent-registry-limits' })
