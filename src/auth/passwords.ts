import { randomBytes, scrypt, timingSafeEqual, type ScryptOptions } from 'node:crypto'
import { promisify } from 'node:util'
import { problem, tooMany } from '../errors.js'
import type { Attempts } from './attempts.js'

/** Work factors of scrypt (RFC 7914). */
interface ScryptCost { N: number, r: number, p: number }

interface PasswordHasherOptions {
  cost?: ScryptCost
  /** Number of hashes that are computed at the same time. */
  concurrency?: number
  /** Number of hashes that may wait; further ones are refused. */
  queue?: number
}

interface ParsedHash { cost: ScryptCost, salt: Buffer, hash: Buffer }

/** One of the equivalent settings of the OWASP Password Storage Cheat Sheet; 32 MiB per hash. */
const defaultCost: ScryptCost = { N: 32_768, r: 8, p: 3 }
const hashBytes = 32

const derive = promisify<string, Buffer, number, ScryptOptions, Buffer>(scrypt)

function encode ({ cost: { N, r, p }, salt, hash }: ParsedHash): string {
  return ['scrypt', N, r, p, salt.toString('base64url'), hash.toString('base64url')].join('$')
}

function parse (text: string): ParsedHash {
  const [scheme, N, r, p, salt, hash, ...rest] = text.split('$')
  if (scheme !== 'scrypt' || salt === undefined || hash === undefined || rest.length > 0) {
    throw new TypeError('Unknown format of a password hash')
  }
  return { cost: { N: Number(N), r: Number(r), p: Number(p) }, salt: Buffer.from(salt, 'base64url'), hash: Buffer.from(hash, 'base64url') }
}

/**
 * Hashes passwords and PINs (scrypt, RFC 7914). A hash keeps a core busy for a long time, so that only a few are computed
 * at the same time, some wait and the others are refused.
 */
export class PasswordHasher {
  readonly #cost: ScryptCost
  readonly #concurrency: number
  readonly #queue: number
  readonly #decoy: string
  readonly #waiting: Array<() => void> = []
  #running = 0

  constructor ({ cost = defaultCost, concurrency = 2, queue = 32 }: PasswordHasherOptions = {}) {
    this.#cost = cost
    this.#concurrency = concurrency
    this.#queue = queue
    this.#decoy = encode({ cost, salt: randomBytes(16), hash: randomBytes(hashBytes) })
  }

  /** @throws rate-limit-exceeded if the queue is full */
  async hashPassword (text: string): Promise<string> {
    const salt = randomBytes(16)
    return encode({ cost: this.#cost, salt, hash: await this.#derive(text, salt, this.#cost) })
  }

  /**
   * Whether `hash` is a hash of `text`. With null (an unknown account) the result is false and takes the same time.
   * @throws rate-limit-exceeded if the queue is full
   */
  async verifyPassword (text: string, hash: string | null): Promise<boolean> {
    const expected = parse(hash ?? this.#decoy)
    const actual = await this.#derive(text, expected.salt, expected.cost)
    return timingSafeEqual(actual, expected.hash) && hash !== null
  }

  async #derive (text: string, salt: Buffer, cost: ScryptCost): Promise<Buffer> {
    await this.#enter()
    try {
      return await derive(text.normalize('NFKC'), salt, hashBytes, { ...cost, maxmem: 256 * cost.r * (cost.N + cost.p) })
    } finally {
      this.#leave()
    }
  }

  /** Waits for a turn. `#leave` hands its turn over without changing the number of running hashes. */
  async #enter () {
    if (this.#running < this.#concurrency) {
      this.#running++
      return
    }
    if (this.#waiting.length >= this.#queue) throw tooMany('rate-limit-exceeded', 'Too many password checks at the same time', 1000)
    await new Promise<void>(resolve => this.#waiting.push(resolve))
  }

  #leave () {
    const next = this.#waiting.shift()
    if (next) next()
    else this.#running--
  }
}

export interface Credentials { username: string, password: string, address: string }

interface AdminAccountOptions {
  username: string
  /** Without a password no login is possible. */
  password?: string
  passwords: PasswordHasher
  attempts: Attempts
}

function isSame (a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)]
  return left.length === right.length && timingSafeEqual(left, right)
}

/** The configured admin account. From the first login on, only a hash of its password is kept. */
export class AdminAccount {
  readonly #username: string
  readonly #passwords: PasswordHasher
  readonly #attempts: Attempts
  #password: string | undefined
  #hash: Promise<string> | undefined

  constructor ({ username, password, passwords, attempts }: AdminAccountOptions) {
    this.#username = username
    this.#password = password
    this.#passwords = passwords
    this.#attempts = attempts
  }

  /** @throws authentication-failed, after the same time for a wrong name as for a wrong password */
  async check ({ username, password, address }: Credentials): Promise<void> {
    await this.#attempts.attempt({ kind: 'login', address, account: username }, async () => {
      const hash = await this.#hashed()
      const isCorrect = await this.#passwords.verifyPassword(password, isSame(username, this.#username) ? hash : null)
      if (!isCorrect) throw problem('authentication-failed', 'Authentication failed: Invalid admin credentials')
    })
  }

  /** The first login waits for the hash whatever name it gives, so that its time reveals nothing. */
  async #hashed (): Promise<string | null> {
    if (this.#password !== undefined) this.#hash ??= this.#hashPassword(this.#password)
    return this.#hash ?? null
  }

  async #hashPassword (password: string): Promise<string> {
    try {
      const hash = await this.#passwords.hashPassword(password)
      this.#password = undefined
      return hash
    } catch (error) {
      this.#hash = undefined
      throw error
    }
  }
}
