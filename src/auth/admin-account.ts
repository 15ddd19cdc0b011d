import { timingSafeEqual } from 'node:crypto'
import { problem } from '../errors.js'
import type { Attempts } from './attempts.js'
import type { PasswordHasher } from './passwords.js'

export interface Credentials { username: string, password: string, address: string }

export interface AdminAccountOptions {
  username: string
  /** Without one nobody can log in. */
  password?: string
  passwords: PasswordHasher
  attempts: Attempts
}

function isSame (a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)]
  return left.length === right.length && timingSafeEqual(left, right)
}

/** The configured admin account. Its password is kept as a hash, from the first login on. */
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

  /** @throws authentication-failed, the same and after the same time for a wrong name and a wrong password. */
  async check ({ username, password, address }: Credentials): Promise<void> {
    await this.#attempts.attempt({ kind: 'login', address, account: username }, async () => {
      const hash = await this.#hashed()
      const isRight = await this.#passwords.verifyPassword(password, isSame(username, this.#username) ? hash : null)
      if (!isRight) throw problem('authentication-failed', 'Authentication failed: Invalid admin credentials')
    })
  }

  /** Whoever comes first, with whatever name, waits for the hash: the time tells nothing. */
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
