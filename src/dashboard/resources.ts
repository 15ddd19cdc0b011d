import { readFileSync, statfsSync } from 'node:fs'
import { cpus, freemem, totalmem } from 'node:os'
import type { Clock } from '../lib/clock.js'
import { round } from './frames.js'

/** Processor time of all cores together, in a unit of the operating system. */
export interface CpuTimes { readonly busy: number, readonly total: number }
export interface DiskCounters { readonly bytes: number, readonly operations: number }

/** Figures of the host. Counters grow from the start of the host; null means unknown. */
export interface HostCounters {
  cpu (): CpuTimes
  /** Fraction of the memory in use, 0 to 1. */
  memory (): number
  /** Bytes received and sent. */
  network (): number | null
  /** Fraction of the file system in use, 0 to 1. */
  diskUsage (): number | null
  diskActivity (): DiskCounters | null
}

const sectorBytes = 512
/** Whole devices: the counters of a partition are part of those of its device. */
const diskNames = /^(?:[shv]d[a-z]+|xvd[a-z]+|nvme\d+n\d+|mmcblk\d+)$/

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0)

/** Parses the first line of /proc/stat (proc(5)): user, nice, system, idle, iowait, irq, softirq, steal. */
export function parseCpuTimes (text: string): CpuTimes {
  const values = text.slice(0, text.indexOf('\n')).trim().split(/\s+/).slice(1, 9).map(Number)
  const [, , , idle = 0, ioWait = 0] = values
  const total = sum(values)
  return { busy: total - idle - ioWait, total }
}

/** Parses /proc/net/dev: bytes in both directions of all interfaces except the loopback. */
export function parseNetworkBytes (text: string): number {
  const lines = text.split('\n').slice(2).map(line => line.trim().split(/[\s:]+/))
  return sum(lines.filter(([name]) => name && name !== 'lo').map(fields => Number(fields[1]) + Number(fields[9])))
}

/** Parses /proc/diskstats (iostats.txt of the kernel): reads and writes of all devices. */
export function parseDiskCounters (text: string): DiskCounters {
  const disks = text.split('\n').map(line => line.trim().split(/\s+/)).filter(fields => diskNames.test(fields[2] ?? ''))
  const column = (index: number) => sum(disks.map(fields => Number(fields[index])))
  return { bytes: (column(5) + column(9)) * sectorBytes, operations: column(3) + column(7) }
}

/** Processor times from Node, for systems without /proc. */
export function osCpuTimes (): CpuTimes {
  const times = cpus().map(cpu => cpu.times)
  const total = sum(times.flatMap(each => Object.values(each)))
  return { busy: total - sum(times.map(each => each.idle)), total }
}

/** Reads and parses a file of /proc; returns `fallback()` on systems without it. */
function readProc<T, D> (path: string, parse: (text: string) => T, fallback: () => D): T | D {
  try {
    return parse(readFileSync(path, 'latin1'))
  } catch {
    return fallback()
  }
}

function diskUsageOf (path: string): number | null {
  try {
    const { blocks, bfree, bavail } = statfsSync(path)
    return (blocks - bfree) / (blocks - bfree + bavail)
  } catch {
    return null
  }
}

const unknown = () => null

/**
 * Figures of this host: from /proc if it exists, otherwise from Node. A call takes about 100 microseconds.
 * @param proc folder of the kernel's figures
 * @param root path on the file system that is measured
 */
export function hostCounters (proc = '/proc', root = '/'): HostCounters {
  return {
    cpu: () => readProc(`${proc}/stat`, parseCpuTimes, osCpuTimes),
    memory: () => 1 - freemem() / totalmem(),
    network: () => readProc(`${proc}/net/dev`, parseNetworkBytes, unknown),
    diskUsage: () => diskUsageOf(root),
    diskActivity: () => readProc(`${proc}/diskstats`, parseDiskCounters, unknown)
  }
}

/** Percentages of this host, 0 to 100 with two decimals; 0 if unknown. */
export interface ResourceUtilization { cpu: number, memory: number, network: number, storage: number }

interface HostSample {
  readonly at: number
  readonly cpuTimes: CpuTimes
  readonly networkBytes: number | null
  readonly disk: DiskCounters | null
  readonly cpu: number
  readonly memory: number
  readonly utilization: ResourceUtilization
}

/** Minimum time between two samples: rates over a shorter time are not significant. */
const minSpacingMs = 250
/** Ages after which the previous sample no longer smooths the next one. */
const maxCpuAgeMs = 60_000
const maxMemoryAgeMs = 120_000
/** Time constant of the smoothed processor utilization. */
const cpuSmoothingMs = 10_000
/** Rates at which a disk counts as fully used. */
const fullDisk = { megabytesPerSecond: 100, operationsPerSecond: 1000 }

const fraction = (part: number, whole: number) => Math.min(1, Math.max(0, part / whole))

/** Samples the utilization of the host, smoothed over time. Reads nothing between two calls. */
export class ResourceSampler {
  readonly #now: Clock
  readonly #counters: HostCounters
  readonly #bytesPerSecond: number
  #last: HostSample | undefined

  /** @param capacityMbps network throughput that counts as fully used, in megabits per second */
  constructor ({ now, counters = hostCounters(), capacityMbps = 1000 }: { now: Clock, counters?: HostCounters, capacityMbps?: number }) {
    this.#now = now
    this.#counters = counters
    this.#bytesPerSecond = capacityMbps * 1e6 / 8
  }

  sample (): ResourceUtilization {
    const at = this.#now()
    if (!this.#last || at - this.#last.at >= minSpacingMs) this.#last = this.#read(at)
    return this.#last.utilization
  }

  #read (at: number): HostSample {
    const counters = this.#counters
    const read = { at, cpuTimes: counters.cpu(), networkBytes: counters.network(), disk: counters.diskActivity() }
    const cpu = this.#cpu(read)
    const memory = this.#memory(at)
    const storage = 0.7 * (counters.diskUsage() ?? 0) + 0.3 * this.#diskActivity(read)
    const percent = (value: number) => round(100 * value, 2)
    const utilization = { cpu: percent(cpu), memory: percent(memory), network: percent(this.#network(read)), storage: percent(storage) }
    return { ...read, cpu, memory, utilization }
  }

  #cpu ({ at, cpuTimes }: Pick<HostSample, 'at' | 'cpuTimes'>): number {
    if (!this.#last) return 0
    const { at: before, cpuTimes: { busy, total }, cpu } = this.#last
    if (cpuTimes.total <= total) return cpu
    const current = fraction(cpuTimes.busy - busy, cpuTimes.total - total)
    if (at - before > maxCpuAgeMs) return current
    const weight = Math.min(1, (at - before) / cpuSmoothingMs)
    return weight * current + (1 - weight) * cpu
  }

  #memory (at: number): number {
    const current = this.#counters.memory()
    if (!this.#last || at - this.#last.at > maxMemoryAgeMs) return current
    return 0.7 * current + 0.3 * this.#last.memory
  }

  #network ({ at, networkBytes }: Pick<HostSample, 'at' | 'networkBytes'>): number {
    if (!this.#last || networkBytes === null || this.#last.networkBytes === null) return 0
    return fraction((networkBytes - this.#last.networkBytes) / ((at - this.#last.at) / 1000), this.#bytesPerSecond)
  }

  #diskActivity ({ at, disk }: Pick<HostSample, 'at' | 'disk'>): number {
    if (!this.#last?.disk || !disk) return 0
    const seconds = (at - this.#last.at) / 1000
    const megabytes = fraction((disk.bytes - this.#last.disk.bytes) / 1e6 / seconds, fullDisk.megabytesPerSecond)
    return Math.max(megabytes, fraction((disk.operations - this.#last.disk.operations) / seconds, fullDisk.operationsPerSecond))
  }
}

/** Resources that this process uses. */
export interface ProcessUsage {
  /** Percent of one core since the previous sample, with two decimals; several threads can exceed 100. */
  cpu: number
  /** Resident memory. */
  memory_bytes: number
  uptime_seconds: number
}

/** Figures of this process as Node reports them; processor time in microseconds. */
type ProcessFigures = Pick<NodeJS.Process, 'cpuUsage' | 'uptime'> & { memoryUsage: { rss (): number } }

interface ProcessSample { readonly at: number, readonly busyMs: number, readonly usage: ProcessUsage }

/** Samples the resources of this process. The first sample covers its whole life. Reads nothing between two calls. */
export class ProcessSampler {
  readonly #now: Clock
  readonly #figures: ProcessFigures
  #last: ProcessSample | undefined

  constructor ({ now, figures = process }: { now: Clock, figures?: ProcessFigures }) {
    this.#now = now
    this.#figures = figures
  }

  sample (): ProcessUsage {
    const at = this.#now()
    if (!this.#last || at - this.#last.at >= minSpacingMs) this.#last = this.#read(at)
    return this.#last.usage
  }

  #read (at: number): ProcessSample {
    const { user, system } = this.#figures.cpuUsage()
    const uptime = this.#figures.uptime()
    const busyMs = (user + system) / 1000
    const before = this.#last ?? { at: at - 1000 * uptime, busyMs: 0 }
    const cpu = round(100 * (busyMs - before.busyMs) / Math.max(1, at - before.at), 2)
    return { at, busyMs, usage: { cpu, memory_bytes: this.#figures.memoryUsage.rss(), uptime_seconds: Math.floor(uptime) } }
  }
}
