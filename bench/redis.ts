// A redis-server of our own, reached by a socket in a folder that goes with it.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'

/** A figure of INFO, summed over the names. */
async function infoOf (url: string, section: string, ...names: string[]): Promise<number> {
  const client = new Redis(url)
  const text = await client.info(section)
  client.disconnect()
  return names.reduce((sum, name) => sum + Number(new RegExp(`^${name}:([\\d.]+)`, 'm').exec(text)?.[1]), 0)
}

/** CPU that Redis has used, in microseconds. */
export const redisCpu = async (url: string) => await infoOf(url, 'cpu', 'used_cpu_user', 'used_cpu_sys') * 1e6

/** Bytes that Redis holds. */
export const redisMemory = (url: string) => infoOf(url, 'memory', 'used_memory')

export async function startRedis (): Promise<{ url: string, stop: () => Promise<void> }> {
  const folder = mkdtempSync(join(tmpdir(), 'bench-redis-'))
  const url = join(folder, 'redis.sock')
  const server = spawn('redis-server', ['--port', '0', '--unixsocket', url, '--save', '', '--appendonly', 'no', '--dir', folder])
  for await (const text of server.stdout) if (/ready to accept/i.test(String(text))) break
  async function stop () {
    server.kill()
    await once(server, 'close')
    rmSync(folder, { recursive: true })
  }
  return { url, stop }
}
