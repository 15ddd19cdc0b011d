import type { Clock } from '../lib/clock.js'
import { round } from './frame.js'
import { hostCounters, type CpuTimes, type DiskCounters, type HostCounters } from './host-counters.js'

/** Percentages of this host, 0 to 100 with two decimals; 0 where nothing is known. */
export interface ResourceUtilization { cpu: number, memory: number, network: number, storage: number }

interface Sample {
  readonly at: number
  readonly cpuTimes: CpuTimes
  readonly networkBytes: number | null
  readonly disk: DiskCounters | null
  readonly cpu: number
  readonly memory: number
  readonly utilization: ResourceUtilization
}

/** Below this two samples are too close for a rate. */
const leastSpacingMs = 250
const cpuMemoryMs = 60_000
const memoryMemoryMs = 120_000
/** Time constant of the processor's figure. */
const cpuSmoothingMs = 10_000
/** What counts as a disk that is fully busy. */
const fullDisk = { megabytesPerSecond: 100, operationsPerSecond: 1000 }

const share = (part: number, whole: number) => Math.min(1, Math.max(0, part / whole))

/** What the host is doing, smoothed over the samples. Nothing is read between two calls. */
export class Resources {
  readonly #now: Clock
  readonly #counters: HostCounters
  readonly #bytesPerSecond: number
  #last: Sample | undefined

  /** @param capacityMbps what counts as a network that is fully used, in megabits a second */
  constructor ({ now, counters = hostCounters(), capacityMbps = 1000 }: { now: Clock, counters?: HostCounters, capacityMbps?: number }) {
    this.#now = now
    this.#counters = counters
    this.#bytesPerSecond = capacityMbps * 1e6 / 8
  }

  sample (): ResourceUtilization {
    const at = this.#now()
    if (!this.#last || at - this.#last.at >= leastSpacingMs) this.#last = this.#read(at)
    return this.#last.utilization
  }

  #read (at: number): Sample {
    const read = { at, cpuTimes: this.#counters.cpu(), networkBytes: this.#counters.network(), disk: this.#counters.diskActivity() }
    const cpu = this.#cpu(read)
    const memory = this.#memory(at)
    const storage = 0.7 * (this.#counters.diskUsage() ?? 0) + 0.3 * this.#diskActivity(read)
    const shares = { cpu, memory, network: this.#network(read), storage }
    const percent = (value: number) => round(100 * value, 2)
    const utilization = { cpu: percent(shares.cpu), memory: percent(shares.memory), network: percent(shares.network), storage: percent(shares.storage) }
    return { ...read, cpu, memory, utilization }
  }

  #cpu ({ at, cpuTimes }: Pick<Sample, 'at' | 'cpuTimes'>): number {
    if (!this.#last) return 0
    const { at: before, cpuTimes: { busy, total }, cpu } = this.#last
    if (cpuTimes.total <= total) return cpu
    const current = share(cpuTimes.busy - busy, cpuTimes.total - total)
    if (at - before > cpuMemoryMs) return current
    const weight = Math.min(1, (at - before) / cpuSmoothingMs)
    return weight * current + (1 - weight) * cpu
  }

  #memory (at: number): number {
    const current = this.#counters.memory()
    if (!this.#last || at - this.#last.at > memoryMemoryMs) return current
    return 0.7 * current + 0.3 * this.#last.memory
  }

  #network ({ at, networkBytes }: Pick<Sample, 'at' | 'networkBytes'>): number {
    if (!this.#last || networkBytes === null || this.#last.networkBytes === null) return 0
    return share((networkBytes - this.#last.networkBytes) / ((at - this.#last.at) / 1000), this.#bytesPerSecond)
  }

  #diskActivity ({ at, disk }: Pick<Sample, 'at' | 'disk'>): number {
    if (!this.#last?.disk || !disk) return 0
    const seconds = (at - this.#last.at) / 1000
    const megabytes = share((disk.bytes - this.#last.disk.bytes) / 1e6 / seconds, fullDisk.megabytesPerSecond)
    return Math.max(megabytes, share((disk.operations - this.#last.disk.operations) / seconds, fullDisk.operationsPerSecond))
  }
}
