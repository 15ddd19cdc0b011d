import { readdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import t from 'tap'

/** These run when they are imported; tests start them as processes. */
const programs = ['src/server/main.ts']

function modulesBelow (folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter(name => name.endsWith('.ts')).map(name => join(folder, name))
}

const modules = ['src', 'plugins', 'routes'].flatMap(modulesBelow).filter(name => !programs.includes(name)).sort()

t.test('modules: each can be imported alone, and one that no other imports counts as uncovered', async t => {
  t.ok(modules.length > 50)
  for (const name of modules) {
    const exported: unknown = await import(pathToFileURL(resolve(name)).href)
    t.type(exported, 'object', name)
  }
})

t.test('modules: programs are at their documented paths', async t => {
  t.same(['src', 'plugins', 'routes'].flatMap(modulesBelow).filter(name => programs.includes(name)), programs)
})
