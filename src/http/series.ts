import prom from '@platformatic/prom-client'

type Labels = Record<string, string>
type Set = (value: number, labels?: Labels) => void

/** Sets a series anew each time that it is read. */
function pulled (make: (collect: () => void) => { reset (): void, inc (labels: Labels, value: number): void }, collect: (set: Set) => void): void {
  const made = make(() => {
    made.reset()
    collect((value, labels = {}) => { made.inc(labels, value) })
  })
}

/** A gauge whose values are asked for when it is read. */
export function gauge (register: prom.Registry, name: string, help: string, labelNames: string[], collect: (set: Set) => void): void {
  pulled(read => new prom.Gauge({ name, help, labelNames, registers: [register], collect: read }), collect)
}

/** A counter that somebody else counts. */
export function counter (register: prom.Registry, name: string, help: string, labelNames: string[], collect: (set: Set) => void): void {
  pulled(read => new prom.Counter({ name, help, labelNames, registers: [register], collect: read }), collect)
}
