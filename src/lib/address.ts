import { isIPv6 } from 'node:net'

/** The eight groups of an IPv6 address, as numbers. */
function groupsOf (address: string): number[] {
  const [head = [], tail] = address.split('::').map(half => half.split(':').filter(group => group !== '').flatMap(groupValues))
  if (tail === undefined) return head
  return [...head, ...Array<number>(8 - head.length - tail.length).fill(0), ...tail]
}

/** One group in hex, or the two that a dotted tail stands for. */
function groupValues (group: string): number[] {
  if (!group.includes('.')) return [Number.parseInt(group, 16)]
  const [a = 0, b = 0, c = 0, d = 0] = group.split('.').map(Number)
  return [a * 256 + b, c * 256 + d]
}

/**
 * What an address counts as when something is limited per address: an IPv6 network of 64 bits, since whoever has one
 * address has all of those (RFC 6177); an IPv4-mapped address as IPv4; anything else as it is.
 */
export function addressKey (address: string): string {
  const [plain = ''] = address.split('%', 1)
  if (!isIPv6(plain)) return address
  const groups = groupsOf(plain)
  const isMapped = groups.slice(0, 5).every(group => group === 0) && groups[5] === 0xffff
  if (isMapped) return groups.slice(6).flatMap(group => [group >> 8, group & 255]).join('.')
  return `${groups.slice(0, 4).map(group => group.toString(16)).join(':')}::/64`
}
