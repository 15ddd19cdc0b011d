// A redis-server of our own, reached by a socket in a folder that goes with it.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

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
