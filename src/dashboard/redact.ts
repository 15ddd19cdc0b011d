import { isPoisonousKey } from '../protocol/schemas/common.js'

export type Scalar = string | number | boolean | null

const secretWord = /(?:tokens?|tickets?|keys?|authorization|passwords?|passwd|secrets?|cookies?|credentials?)$|^pin$/i
const secretParameter = /(^|[?&;#\s"'({,])([\w.%-]*(?:token|ticket|key|password|passwd|secret|authorization|pin))=[^&\s"'<>#]+/gi
const bearer = /\b(bearer|basic|dpop)[\s.]+[\w.~+/=-]{16,}/gi
const jsonWebToken = /(?<![\w-])eyJ[\w-]+\.[\w-]+\.[\w-]*/g

/** Whether there is anything to look for: most texts hold nothing of the kind. */
const suspicious = /=|bearer|basic|dpop|eyJ/i

const maxExtras = 24
const maxKeyLength = 64
const maxValueLength = 512
/** Looking for secrets costs time for every character: what is beyond this is cut before. */
const maxInspected = 8_192

/** `text` in at most `length` UTF-16 units, with an ellipsis where it was cut. */
export function cut (text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length - 1).replace(/[\uD800-\uDBFF]$/, '')}…`
}

/** `text` without values of secret parameters, credentials and JSON Web Tokens, in at most `length` UTF-16 units. */
export function redact (text: string, length: number): string {
  const inspected = cut(text, Math.max(maxInspected, length))
  if (!suspicious.test(inspected)) return cut(inspected, length)
  return cut(inspected
    .replace(secretParameter, '$1$2=[redacted]')
    .replace(bearer, '$1 [redacted]')
    .replace(jsonWebToken, '[redacted]'), length)
}

/** Verdicts on names: what is logged has the same few members over and over. */
const verdicts = new Map<string, boolean>()
const maxVerdicts = 1_000

/** Whether a member of this name may hold a secret; words are told apart by case, `_`, `-` and `.`. */
export function isSecretName (name: string): boolean {
  const known = verdicts.get(name)
  if (known !== undefined) return known
  const verdict = hasSecretWord(name)
  if (verdicts.size < maxVerdicts) verdicts.set(name, verdict)
  return verdict
}

function hasSecretWord (name: string): boolean {
  return name.split(/[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])/).some(word => secretWord.test(word))
}

function scalarOf (value: unknown): Scalar | undefined {
  if (typeof value === 'string') return redact(value, maxValueLength)
  if (typeof value === 'number') return Number.isFinite(value) ? value : undefined
  return typeof value === 'boolean' || value === null ? value : undefined
}

/**
 * Members of `values` that may be shown: scalars, bounded in number and length, none of a secret name and none of the
 * names in `reserved`.
 */
export function cleanMembers (values: object, reserved: ReadonlySet<string> = new Set()): Record<string, Scalar> {
  const clean: Record<string, Scalar> = {}
  let count = 0
  for (const [name, value] of Object.entries(values)) {
    if (reserved.has(name) || name.length > maxKeyLength || isPoisonousKey(name) || isSecretName(name)) continue
    const scalar = scalarOf(value)
    if (scalar === undefined) continue
    clean[name] = scalar
    if (++count === maxExtras) break
  }
  return clean
}
