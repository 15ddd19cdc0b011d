// Runs every example against a registry of its own. Each must print what is expected of it and end with code 0.
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { agentKey, begin, makeFolder, root, script, startRegistry, stop, transpileFile, waitForOutput } from './support.js'

/** What an example prints, and whether it runs until it is interrupted. */
const expectations = {
}

const folder = join(root, 'examples')
const examples = readdirSync(folder).filter(name => name.endsWith('.ts')).sort()

async function finish (started, interrupt) {
  if (interrupt) return stop(started, 'SIGINT')
  const { code, signal, output } = await started.ended
  if (code !== 0) throw new Error(`ended with ${code ?? signal}\n${output}`)
}

async function runExample (name, file, url) {
  const { lines, interrupt = false } = expectations[name] ?? {}
  if (!lines) throw new Error(`${name}: scripts/run-examples.js does not say what it prints`)
  const started = begin(process.execPath, [file], { env: { REGISTRY_URL: url, AGENT_KEY: agentKey }, timeoutMs: 60_000 })
  for (const line of lines) await waitForOutput(started, line)
  await finish(started, interrupt)
  console.log(`  ${name}\n${started.output.trim().replace(/^/gm, '    ')}`)
}

await script('run-examples', async function runExamples () {
  const built = makeFolder('examples', true)
  for (const name of examples) transpileFile(join(folder, name), join(built, name.replace(/\.ts$/, '.js')))
  for (const name of examples) {
    const registry = await startRegistry()
    await runExample(name, join(built, name.replace(/\.ts$/, '.js')), registry.url)
    await registry.stop()
  }
})
