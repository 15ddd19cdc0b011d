import { BlockList, isIPv6 } from 'node:net'

type Subnet = readonly [network: string, prefix: number]

const loopback4: Subnet = ['127.0.0.0', 8]

/** Not globally reachable unicast (IANA special-purpose registry, RFC 6890), and an address reserved by a cloud. */
const refused4: readonly Subnet[] = [
  loopback4,
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.88.99.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
  // The platform address of Azure, reachable from every virtual machine.
  ['168.63.129.16', 32]
]

/** Global unicast, and the forms of IPv4 addresses: mapped (RFC 4291) and NAT64 (RFC 6052). */
const allowed6: readonly Subnet[] = [['2000::', 3], ['::ffff:0:0', 96], ['64:ff9b::', 96]]
/** Protocol assignments (which include Teredo, benchmarking and ORCHID) and documentation. */
const refused6: readonly Subnet[] = [['2001::', 23], ['2001:db8::', 32], ['3fff::', 20]]

/** The IPv6 forms of an IPv4 network: mapped, NAT64 and 6to4 (RFC 3056). */
function formsOf ([network, prefix]: Subnet): Subnet[] {
  const bytes = network.split('.').map(byte => Number(byte).toString(16).padStart(2, '0'))
  const groups = `${bytes[0]}${bytes[1]}:${bytes[2]}${bytes[3]}`
  return [[`::ffff:${groups}`, 96 + prefix], [`64:ff9b::${groups}`, 96 + prefix], [`2002:${groups}::`, 16 + prefix]]
}

function listOf (subnets4: readonly Subnet[], subnets6: readonly Subnet[]): BlockList {
  const list = new BlockList()
  for (const [network, prefix] of subnets4) list.addSubnet(network, prefix, 'ipv4')
  for (const [network, prefix] of subnets6) list.addSubnet(network, prefix, 'ipv6')
  return list
}

const loopback = listOf([loopback4], [['::1', 128], ...formsOf(loopback4).slice(0, 1)])
const refused = listOf(refused4, [...refused6, ...refused4.flatMap(formsOf)])
const allowed = listOf([], allowed6)

export function isLoopback (address: string): boolean {
  return loopback.check(address, isIPv6(address) ? 'ipv6' : 'ipv4')
}

/**
 * Whether an address is public unicast. The IPv6 forms of IPv4 addresses are checked as IPv4 addresses.
 * @param address IPv4 or IPv6, as returned by the resolver
 */
export function isPublicAddress (address: string): boolean {
  if (!isIPv6(address)) return !refused.check(address, 'ipv4')
  return allowed.check(address, 'ipv6') && !refused.check(address, 'ipv6')
}
