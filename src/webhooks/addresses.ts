import { BlockList, isIPv6 } from 'node:net'

type Subnet = readonly [network: string, prefix: number]

const loopback4: Subnet = ['127.0.0.0', 8]

/** Not globally reachable unicast (IANA special-purpose registry, RFC 6890), and one that clouds keep for themselves. */
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
  // Every virtual machine of Azure reaches its host here.
  ['168.63.129.16', 32]
]

/** Global unicast, and what stands for an IPv4 address: mapped (RFC 4291) and NAT64 (RFC 6052). */
const allowed6: readonly Subnet[] = [['2000::', 3], ['::ffff:0:0', 96], ['64:ff9b::', 96]]
/** Protocol assignments with Teredo, benchmarking and ORCHID in them, and documentation. */
const refused6: readonly Subnet[] = [['2001::', 23], ['2001:db8::', 32], ['3fff::', 20]]

/** The IPv6 forms in which an IPv4 network can be reached: mapped, NAT64, 6to4 (RFC 3056). */
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

const loopback = listOf([loopback4], [['::1', 128], [formsOf(loopback4)[0]![0], 104]])
const refused = listOf(refused4, [...refused6, ...refused4.flatMap(formsOf)])
const allowed = listOf([], allowed6)

export function isLoopback (address: string): boolean {
  return loopback.check(address, isIPv6(address) ? 'ipv6' : 'ipv4')
}

/**
 * Whether an address is public unicast, also behind the forms in which IPv6 carries IPv4.
 * @param address IPv4 or IPv6, as the resolver gives it
 */
export function isPublicAddress (address: string): boolean {
  if (!isIPv6(address)) return !refused.check(address, 'ipv4')
  return allowed.check(address, 'ipv6') && !refused.check(address, 'ipv6')
}
