import { isIPv6 } from 'node:net'

/** The eight groups of an IPv6 address, as numbers. */
function groupsOf (address: string): number[] {
  const [head = [], tail] = address.split('::').map(half => half.split(':').filter(group => group !== '').flatMap(groupValues))
  if (tail === undefined) return head
  return [...head, ...Array<number>(8 - head.length - tail.length).fill(0), ...tail]
}

/** One hexadecimal group, or the two groups of a dotted tail. */
function groupValues (group: string): number[] {
  if (!group.includes('.')) return [Number.parseInt(group, 16)]
  const [a = 0, b = 0, c = 0, d = 0] = group.split('.').map(Number)
  return [a * 256 + b, c * 256 + d]
}

/**
 * The key of an address for limits per address. IPv6 addresses are grouped by networks of 64 bits, since a client that has
 * one address has all of them (RFC 6177). IPv4-mapped addresses count as IPv4; other texts are not changed.
 */
export function addressKey (address: string): string {
  const [plain = ''] = address.split('%', 1)
  if (!isIPv6(plain)) return address
  const groups = groupsOf(plain)
  const isMapped = groups.slice(0, 5).every(group => group === 0) && groups[5] === 0xffff
  if (isMapped) return groups.slice(6).flatMap(group => [group >> 8, group & 255]).join('.')
  return `${groups.slice(0, 4).map(group => group.toString(16)).join(':')}::/64`
}
