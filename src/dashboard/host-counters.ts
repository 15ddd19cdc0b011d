import { readFileSync, statfsSync } from 'node:fs'
import { cpus, freemem, totalmem } from 'node:os'

/** Times of all processors together, in a unit of the system's own. */
export interface CpuTimes { readonly busy: number, readonly total: number }
export interface DiskCounters { readonly bytes: number, readonly operations: number }

/** Where the figures of a host come from. Counters grow from the start of the host; null is unknown. */
export interface HostCounters {
  cpu (): CpuTimes
  /** Share of the memory that is in use, 0 to 1. */
  memory (): number
  /** Bytes received and sent. */
  network (): number | null
  /** Share of the file system that is in use, 0 to 1. */
  diskUsage (): number | null
  diskActivity (): DiskCounters | null
}

const sectorBytes = 512
/** Whole devices: what is counted for a partition is counted for its device too. */
const diskNames = /^(?:[shv]d[a-z]+|xvd[a-z]+|nvme\d+n\d+|mmcblk\d+)$/

const numbers = (fields: readonly string[]) => fields.map(Number)
const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0)

/** The first line of /proc/stat (proc(5)): user, nice, system, idle, iowait, irq, softirq, steal. */
export function parseCpuTimes (text: string): CpuTimes {
  const values = numbers(text.slice(0, text.indexOf('\n')).trim().split(/\s+/).slice(1, 9))
  const total = sum(values)
  return { busy: total - values[3]! - values[4]!, total }
}

/** /proc/net/dev: bytes in both directions of every interface but the loopback. */
export function parseNetworkBytes (text: string): number {
  const lines = text.split('\n').slice(2).map(line => line.trim().split(/[\s:]+/))
  return sum(lines.filter(([name]) => name && name !== 'lo').map(fields => Number(fields[1]) + Number(fields[9])))
}

/** /proc/diskstats (iostats.txt of the kernel): reads and writes of all devices. */
export function parseDiskCounters (text: string): DiskCounters {
  const disks = text.split('\n').map(line => line.trim().split(/\s+/)).filter(fields => diskNames.test(fields[2] ?? ''))
  const column = (index: number) => sum(disks.map(fields => Number(fields[index])))
  return { bytes: (column(5) + column(9)) * sectorBytes, operations: column(3) + column(7) }
}

/** Times as Node knows them, where there is no /proc. */
export function osCpuTimes (): CpuTimes {
  const times = cpus().map(cpu => cpu.times)
  const total = sum(times.flatMap(each => Object.values(each)))
  return { busy: total - sum(times.map(each => each.idle)), total }
}

/** What a file of the system's own says, or `otherwise` on systems that have none. */
function readProc<T, D> (path: string, parse: (text: string) => T, otherwise: () => D): T | D {
  try {
    return parse(readFileSync(path, 'latin1'))
  } catch {
    return otherwise()
  }
}

function usageOf (path: string): number | null {
  try {
    const { blocks, bfree, bavail } = statfsSync(path)
    return (blocks - bfree) / (blocks - bfree + bavail)
  } catch {
    return null
  }
}

const unknown = () => null

/**
 * Figures of this host: /proc where it exists, else what Node knows. A call costs some 100 microseconds.
 * @param proc folder of the kernel's figures
 * @param root a path on the file system that is looked at
 */
export function hostCounters (proc = '/proc', root = '/'): HostCounters {
  return {
    cpu: () => readProc(`${proc}/stat`, parseCpuTimes, osCpuTimes),
    memory: () => 1 - freemem() / totalmem(),
    network: () => readProc(`${proc}/net/dev`, parseNetworkBytes, unknown),
    diskUsage: () => usageOf(root),
    diskActivity: () => readProc(`${proc}/diskstats`, parseDiskCounters, unknown)
  }
}
