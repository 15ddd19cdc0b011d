import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { text } from 'node:stream/consumers'
import { ClassicLevel } from 'classic-level'
import t, { type Test } from 'tap'
import { crc32c, maskedCrc32c } from '../../src/storage/level/crc32c.js'
import { bootId, createMark, currentBoot, markName, readMark } from '../../src/storage/level/mark.js'
import { crashed, filesOf, open, registerMany } from '../unit/storage/level-helper.js'

const root = t.testdir()
let folders = 0
const newFolder = () => join(root, `folder-${folders++}`)
const size = 200
const long = 'y'.repeat(1500)

/** A store that was closed, whose agents are in tables. */
const closed = newFolder()
/** A store whose process was killed, whose agents are in its log: over ten blocks of it. */
const killed = newFolder()

t.before(async () => {
  const first = await open(closed)
  await registerMany(first.storage, size, long)
  await first.storage.agents.close()
  const second = await open(closed)
  await second.storage.agents.close()
  const other = await open(newFolder())
  for (let n = 0; n < 20; n++) await registerMany(other.storage, size / 20, long, `agent-${n}`)
  crashed(other.storage.folder, killed)
  await other.storage.agents.close()
})

/** Path of the largest file with this ending, or of that name. */
function fileOf (folder: string, ending: string): string {
  const paths = readdirSync(folder).filter(name => name.endsWith(ending) || name.startsWith(ending)).map(name => join(folder, name))
  return paths.toSorted((a, b) => statSync(b).size - statSync(a).size)[0]!
}

async function refused (t: Test, folder: string, finding: RegExp): Promise<void> {
  const before = filesOf(folder)
  const { message } = await open(folder).then(() => ({ message: 'it was opened' }), (error: Error) => error)
  t.match(message, finding)
  t.match(message, `The store in ${folder} was not opened: `)
  t.match(message, /\. [A-Z][^.]+\.$/, 'what to do')
  t.same(filesOf(folder), before, 'nothing was changed')
}

const truncate = (path: string) => { truncateSync(path, Math.floor(statSync(path).size / 2)) }
const empty = (path: string) => { truncateSync(path, 0) }
const remove = (path: string) => { rmSync(path) }
function overwrite (path: string) {
  const bytes = readFileSync(path)
  const at = Math.floor(bytes.length / 2)
  bytes.fill(0x5a, at, at + Math.min(4096, Math.ceil(bytes.length / 8)))
  writeFileSync(path, bytes)
}
function zero (path: string) {
  const bytes = readFileSync(path)
  writeFileSync(path, bytes.fill(0, Math.floor(bytes.length / 3), Math.floor(bytes.length / 2)))
}
function flip (path: string) {
  const bytes = readFileSync(path)
  const at = Math.floor(bytes.length * 0.7)
  bytes[at]! ^= 1
  writeFileSync(path, bytes)
}
const refill = (byte: number, from: number, to?: number) => (path: string) => {
  const bytes = readFileSync(path)
  bytes.subarray(from, to).fill(byte)
  writeFileSync(path, bytes)
}
/** Adds an edit to a manifest, whole and with its checksum. */
const addEdit = (...bytes: number[]) => (path: string) => {
  const payload = Buffer.from(bytes)
  const piece = Buffer.concat([Buffer.alloc(4), Buffer.from([payload.length, 0, 1]), payload])
  piece.writeUInt32LE(maskedCrc32c(piece, 6), 0)
  writeFileSync(path, Buffer.concat([readFileSync(path), piece]))
}

t.test('checksums are those of the standard', async t => {
  // RFC 3720, B.4
  t.equal(crc32c(Buffer.alloc(32)), 0x8a9136aa)
  t.equal(crc32c(Buffer.alloc(32, 0xff)), 0x62a8ab43)
  t.equal(crc32c(Buffer.from(Array.from({ length: 32 }, (_, n) => n))), 0x46dd794e)
  t.equal(crc32c(Buffer.from('123456789')), 0xe3069283)
})

t.test('runs of a machine have names, or times', async t => {
  t.equal(bootId(), currentBoot)
  t.match(bootId('/none'), /^since-\d+$/)
})

const cases: ReadonlyArray<[what: string, of: () => string, name: string, damage: (path: string) => void, finding: RegExp]> = [
  ['a truncated table', () => closed, '.ldb', truncate, /\d+\.ldb has \d+ bytes of \d+/],
  ['an empty table', () => closed, '.ldb', empty, /\.ldb has 0 bytes of \d+/],
  ['a missing table', () => closed, '.ldb', remove, /\.ldb is missing/],
  ['a table with a page of something else in the middle', () => closed, '.ldb', overwrite, /\.ldb is damaged/],
  ['a table with pages of zeros', () => closed, '.ldb', zero, /\.ldb is damaged/],
  ['a table in which one bit is another', () => closed, '.ldb', flip, /\.ldb is damaged/],
  ['a table whose end is of something else', () => closed, '.ldb', refill(0x5a, -40), /\.ldb is damaged/],
  ['a table whose index points elsewhere', () => closed, '.ldb', refill(0xff, -48, -8), /\.ldb is damaged/],
  ['a truncated log', () => killed, '.log', truncate, /the newest \d+ of \d+ writes are missing/],
  ['an empty log', () => killed, '.log', empty, /the newest \d+ of \d+ writes are missing/],
  ['a missing log', () => killed, '.log', remove, /the newest \d+ of \d+ writes are missing/],
  ['a log without its last byte', () => killed, '.log', path => { truncateSync(path, statSync(path).size - 1) }, /the newest \d+ of \d+ writes are missing/],
  ['a log with a page of something else in the middle', () => killed, '.log', overwrite, /\.log is damaged/],
  ['a log with pages of zeros', () => killed, '.log', zero, /\.log is damaged/],
  ['a log in which one bit is another', () => killed, '.log', flip, /\.log is damaged/],
  ['a log whose last page is of something else', () => killed, '.log', refill(0x5a, -4096), /the newest \d+ of \d+ writes are missing/],
  ['a log without its first block', () => killed, '.log', path => { writeFileSync(path, readFileSync(path).subarray(32_768)) }, /\.log is damaged/],
  ['a truncated manifest', () => closed, 'MANIFEST-', truncate, /MANIFEST-\d+ is truncated or damaged/],
  ['an empty manifest', () => closed, 'MANIFEST-', empty, /MANIFEST-\d+ is truncated or damaged/],
  ['a missing manifest', () => closed, 'MANIFEST-', remove, /MANIFEST-\d+ is missing/],
  ['an overwritten manifest', () => closed, 'MANIFEST-', overwrite, /MANIFEST-\d+ is truncated or damaged/],
  ['a manifest that says what nobody knows', () => closed, 'MANIFEST-', addEdit(99), /MANIFEST-\d+ is damaged/],
  ['a manifest with a number that does not end', () => closed, 'MANIFEST-', addEdit(2, ...Array(12).fill(0xff)), /MANIFEST-\d+ is damaged/],
  ['an empty pointer to the manifest', () => closed, 'CURRENT', empty, /CURRENT is empty or damaged/],
  ['a missing pointer to the manifest', () => closed, 'CURRENT', remove, /CURRENT is missing/],
  ['an empty mark', () => closed, markName, empty, /AGENT-REGISTRY is empty or damaged/],
  ['an overwritten mark', () => closed, markName, overwrite, /AGENT-REGISTRY is empty or damaged/],
  ['a mark that is none', () => closed, markName, path => { createMark(join(path, '..'), Object.assign(readMark(join(path, '..')), { sequence: 'many' })) }, /AGENT-REGISTRY is empty or damaged/],
  ['a store of a newer version', () => closed, markName, path => { createMark(join(path, '..'), { ...readMark(join(path, '..')), schema: 2 }) }, /it has schema 2, and this version knows 1\. Start the newer version/]
]

for (const [what, of, name, damage, finding] of cases) {
  t.test(`${what} is refused, and left as it is`, async t => {
    const folder = newFolder()
    cpSync(of(), folder, { recursive: true })
    damage(fileOf(folder, name))
    await refused(t, folder, finding)
  })
}

t.test('what was copied for these tests is opened where nothing is damaged', async t => {
  for (const of of [closed, killed]) {
    const folder = newFolder()
    cpSync(of, folder, { recursive: true })
    const { storage, snapshot } = await open(folder)
    t.equal(snapshot.agents.length, size)
    t.equal(snapshot.revision, size)
    await storage.agents.close()
  }
})

const records: ReadonlyArray<[what: string, key: string, value: string | null, finding: RegExp]> = [
  ['an agent that is no JSON', 'agent!agent-1', '{', /'agent!agent-1' cannot be read/],
  ['an agent that breaks its schema', 'agent!agent-1', '{"revision":-1}', /'agent!agent-1' cannot be read \(breaks its schema\)/],
  ['an agent without what it registered', 'content!agent-1', null, /agent 'agent-1' is there by half/],
  ['a registration without an agent', 'agent!agent-1', null, /agent 'agent-1' is there by half/],
  ['an agent of the future', 'agent!agent-1', 'future', /agent 'agent-1' is newer than the store/],
  ['changes with a gap', 'changes!0000000000000001', null, /change \d+ is missing/],
  ['a store without what all depends on', 'meta', null, /meta is missing/],
  ['a shared fact that breaks its schema', 'state!session!one', '{}', /'state!session!one' cannot be read/],
  ['what is not of a registry', 'other', 'x', /other is not of a registry/]
]

for (const [what, key, value, finding] of records) {
  t.test(`${what} is refused instead of left out`, async t => {
    const folder = newFolder()
    const first = await open(folder)
    // One batch, and another: a gap is one that something follows.
    await registerMany(first.storage, 3)
    await registerMany(first.storage, 2, 'x', 'more')
    await first.storage.agents.close()
    const level = new ClassicLevel(folder, { compression: false })
    const future = JSON.stringify({ ...JSON.parse(await level.get('agent!agent-1') ?? ''), revision: 99 })
    if (value === null) await level.del(key)
    else await level.put(key, value === 'future' ? future : value)
    if (key.startsWith('changes')) await level.put('changes!0000000000000003', await level.get('changes!0000000000000004') ?? '')
    await level.close()
    for (const tries of [1, 2]) await t.rejects(open(folder), { message: finding, code: 'AGENT_REGISTRY_STORE_REFUSED' }, `try ${tries}`)
  })
}

t.test('what is no store is refused, and left as it is', async t => {
  const foreign = newFolder()
  for (const name of ['photos', 'music']) mkdirSync(join(foreign, name), { recursive: true })
  for (const name of ['a.txt', 'b.txt']) writeFileSync(join(foreign, name), 'mine')
  await refused(t, foreign, /it holds files that are not of a store \(a\.txt, b\.txt, music …\)/)

  const other = newFolder()
  const level = new ClassicLevel(other)
  await level.put('key', 'value')
  await level.close()
  await refused(t, other, /it is a LevelDB database of another program/)

  const arcp = newFolder()
  mkdirSync(arcp)
  writeFileSync(join(arcp, 'registry_state.json'), '{"agents":{}}')
  await refused(t, arcp, /\(registry_state\.json\)\. Give it an empty or a new folder\. What ARCP has left there can be read with the command import\./)

  await t.rejects(open(join(arcp, 'registry_state.json')), { message: /registry_state\.json was not opened: it is a file\. Give it a folder/ })
  await t.rejects(open(join(arcp, 'registry_state.json', 'inside')), { message: /was not opened: a part of its path is a file\. / })
  t.equal(readFileSync(join(arcp, 'registry_state.json'), 'utf8'), '{"agents":{}}')
})

t.test('an empty folder, and one that a process left while it made a store, become stores', async t => {
  const folder = newFolder()
  mkdirSync(join(folder, 'lost+found'), { recursive: true })
  const first = await open(folder)
  t.same(first.snapshot.agents, [])
  await first.storage.agents.close()
  const begun = newFolder()
  mkdirSync(begun)
  createMark(begun, { ...readMark(folder), sequence: 0 })
  const second = await open(begun)
  t.same(second.snapshot.agents, [])
  t.not(second.snapshot.epoch, first.snapshot.epoch)
  await second.storage.agents.close()
})

/** Opens a store in a process of its own, and what that prints. */
async function openElsewhere (folder: string): Promise<string> {
  const storage = resolve('src/storage/level/storage.ts')
  const script = `const { LevelStorage } = await import(${JSON.stringify(storage)})
    const { agents } = new LevelStorage({ path: ${JSON.stringify(folder)}, leaseMs: 1000, retentionMs: 1000 })
    const deaf = () => {}
    try {
      await agents.open({ changed: deaf, touched: deaf, reloaded: deaf, availability: deaf })
      console.log('opened')
      await agents.close()
    } catch (error) { console.log(error.message) }`
  const child = spawn(process.execPath, [...process.execArgv, '--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [out] = await Promise.all([text(child.stdout), once(child, 'close')])
  return out
}

t.test('a store that is open is refused to others, in this process and in another', async t => {
  const folder = newFolder()
  const { storage } = await open(folder)
  await registerMany(storage, 3)
  await t.rejects(open(folder), { message: /was not opened: another process has it open\. Stop that process/ })
  t.match(await openElsewhere(folder), /another process has it open\. Stop that process/)
  await registerMany(storage, 4)
  await storage.agents.close()
  t.match(await openElsewhere(folder), /^opened$/m)
})

t.test('a folder that may not be written to is refused', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'level-'))
  chmodSync(folder, 0o555)
  const isRoot = process.geteuid!() === 0
  t.teardown(() => {
    if (isRoot) process.seteuid!(0)
    rmSync(folder, { recursive: true })
  })
  if (isRoot) process.seteuid!('nobody')
  await t.rejects(open(folder), { message: /was not opened: .*(may not be written to|[Pp]ermission denied)\. Give it a folder that this user may write to/ })
  t.same(readdirSync(folder), [])
})
