// A redis-server on a unix socket in a temporary folder, which is removed with it.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'

/** Sum of the values of INFO with these names. */
async function infoOf (url: string, section: string, ...names: string[]): Promise<number> {
  const client = new Redis(url)
  const text = await client.info(section)
  client.disconnect()
  return names.reduce((sum, name) => sum + Number(new RegExp(`^${name}:([\\d.]+)`, 'm').exec(text)?.[1]), 0)
}

/** CPU time of Redis so far, in microseconds. */
export const redisCpu = async (url: string) => await infoOf(url, 'cpu', 'used_cpu_user', 'used_cpu_sys') * 1e6

/** Memory of Redis in bytes. */
export const redisMemory = (url: string) => infoOf(url, 'memory', 'used_memory')

export async function startRedis (): Promise<{ url: string, stop: () => Promise<void> }> {
  const folder = mkdtempSync(join(tmpdir(), 'bench-redis-'))
  const url = join(folder, 'redis.sock')
  const server = spawn('redis-server', ['--port', '0', '--unixsocket', url, '--save', '', '--appendonly', 'no', '--dir', folder])
  const kill = () => { server.kill() }
  // A failed run must not leave the server behind.
  process.once('exit', kill)
  for await (const text of server.stdout) if (/ready to accept/i.test(String(text))) break
  async function stop () {
    process.off('exit', kill)
    kill()
    await once(server, 'close')
    rmSync(folder, { recursive: true })
  }
  return { url, stop }
}
