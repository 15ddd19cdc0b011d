import fc from 'fast-check'

/** `npm run test:long` runs the long forms of kill, fuzz and soak tests; other runs use the short forms. */
export const isLong = process.env.TEST_LONG === '1'

/** The length of a test: a number from the environment variable `name`, or the default of this run. */
export function lengthOf (name: string, forms: { short: number, long: number }): number {
  const given = Number(process.env[name])
  if (Number.isInteger(given) && given > 0) return given
  return isLong ? forms.long : forms.short
}

/** The seed of a random test, shown in its title: a number from the environment variable `name`, or `otherwise`. */
export function seedOf (name: string, otherwise: number): number {
  const given = Number(process.env[name])
  return Number.isInteger(given) && given > 0 ? given : otherwise
}

/** The seed of all tests that use fast-check in this process: TEST_SEED or another one for each run. */
export const seed = seedOf('TEST_SEED', 100_000 + Math.floor(Math.random() * 2_000_000_000))

fc.configureGlobal({ seed })
