import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync, cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { text } from 'node:stream/consumers'
import { ClassicLevel } from 'classic-level'
import t, { type Test } from 'tap'
import { bootId, createHeader, currentBoot, headerName, readHeader } from '../../src/storage/level/header.js'
import { LevelDatabase } from '../../src/storage/level/database.js'
import type { Operation } from '../../src/storage/level/integrity.js'
import { crashed, filesOf, open, registerMany } from '../unit/storage/level-helper.js'

const root = t.testdir()
let folders = 0
const newFolder = () => join(root, `folder-${folders++}`)
const size = 200
const long = 'y'.repeat(1500)

/** A closed store with its agents in tables. */
const closed = newFolder()
/** A store of a killed process with its agents in a log of more than ten blocks. */
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

/** Path of the largest file with this extension, or of the file with this name. */
function fileOf (folder: string, ending: string): string {
  const paths = readdirSync(folder).filter(name => name.endsWith(ending) || name.startsWith(ending)).map(name => join(folder, name))
  return paths.toSorted((a, b) => statSync(b).size - statSync(a).size)[0]!
}

async function refused (t: Test, folder: string, finding: RegExp): Promise<void> {
  const before = filesOf(folder)
  const { message } = await open(folder).then(() => ({ message: 'it was opened' }), (error: Error) => error)
  t.match(message, finding)
  t.match(message, `The store in ${folder} was not opened: `)
  t.match(message, /\. [A-Z][^.]+\.$/, 'the message names the remedy')
  t.same(filesOf(folder), before, 'the folder is unchanged')
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
/** CRC-32C (RFC 3720), the checksum of LevelDB files and of headers of schema 1. */
function crc32c (bytes: Uint8Array): number {
  let crc = 0xffffffff
  for (const byte of bytes) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1
  }
  return (crc ^ 0xffffffff) >>> 0
}
/** Appends an edit with its checksum to a LevelDB manifest. */
const addEdit = (...bytes: number[]) => (path: string) => {
  const payload = Buffer.from(bytes)
  const piece = Buffer.concat([Buffer.alloc(4), Buffer.from([payload.length, 0, 1]), payload])
  const crc = crc32c(piece.subarray(6))
  piece.writeUInt32LE((((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0, 0)
  writeFileSync(path, Buffer.concat([readFileSync(path), piece]))
}

t.test('damage tests: each run has a name or a time', async t => {
  t.equal(bootId(), currentBoot)
  t.match(bootId('/none'), /^since-\d+$/)
})

const damaged = /its files are damaged or missing: |the record '[^']+' is damaged|records are missing or outdated/
const writesMissing = /the newest \d+ of \d+ writes are missing/
const headerDamaged = /AGENT-REGISTRY is empty or damaged/
const many = (path: string) => { createHeader(join(path, '..'), Object.assign(readHeader(join(path, '..')), { sequence: 'many' })) }
const newer = (path: string) => { createHeader(join(path, '..'), { ...readHeader(join(path, '..')), schema: 3 }) }

const cases: ReadonlyArray<[name: string, of: () => string, file: string, damage: (path: string) => void, finding: RegExp]> = [
  ['a truncated table', () => closed, '.ldb', truncate, damaged],
  ['an empty table', () => closed, '.ldb', empty, damaged],
  ['a missing table', () => closed, '.ldb', remove, damaged],
  ['a table with a foreign page in the middle', () => closed, '.ldb', overwrite, damaged],
  ['a table with pages of zeros', () => closed, '.ldb', zero, damaged],
  ['a table in which one bit is flipped', () => closed, '.ldb', flip, damaged],
  ['a table with an overwritten end', () => closed, '.ldb', refill(0x5a, -40), damaged],
  ['a table with a wrong index', () => closed, '.ldb', refill(0xff, -48, -8), damaged],
  ['a truncated log', () => killed, '.log', truncate, writesMissing],
  ['an empty log', () => killed, '.log', empty, writesMissing],
  ['a missing log', () => killed, '.log', remove, writesMissing],
  ['a log that lacks its last byte', () => killed, '.log', path => { truncateSync(path, statSync(path).size - 1) }, writesMissing],
  ['a log with a foreign page in the middle', () => killed, '.log', overwrite, damaged],
  ['a log with pages of zeros', () => killed, '.log', zero, damaged],
  ['a log in which one bit is flipped', () => killed, '.log', flip, damaged],
  ['a log with an overwritten last page', () => killed, '.log', refill(0x5a, -4096), writesMissing],
  ['a log that lacks its first block', () => killed, '.log', path => { writeFileSync(path, readFileSync(path).subarray(32_768)) }, damaged],
  ['a truncated manifest', () => closed, 'MANIFEST-', truncate, damaged],
  ['an empty manifest', () => closed, 'MANIFEST-', empty, damaged],
  ['a missing manifest', () => closed, 'MANIFEST-', remove, damaged],
  ['an overwritten manifest', () => closed, 'MANIFEST-', overwrite, damaged],
  ['a manifest with an unknown edit', () => closed, 'MANIFEST-', addEdit(99), damaged],
  ['a manifest with an unterminated number', () => closed, 'MANIFEST-', addEdit(2, ...Array(12).fill(0xff)), damaged],
  ['an empty pointer to the manifest', () => closed, 'CURRENT', empty, damaged],
  ['a missing pointer to the manifest', () => closed, 'CURRENT', remove, damaged],
  ['an empty header', () => closed, headerName, empty, headerDamaged],
  ['an overwritten header', () => closed, headerName, overwrite, headerDamaged],
  ['a header with a wrong member', () => closed, headerName, many, headerDamaged],
  ['a store of a newer version', () => closed, headerName, newer, /it has schema 3, and this version supports 2\. Start the newer version/]
]

for (const [name, of, file, damage, finding] of cases) {
  t.test(`level storage: ${name} is refused, and the folder is unchanged`, async t => {
    const folder = newFolder()
    cpSync(of(), folder, { recursive: true })
    damage(fileOf(folder, file))
    await refused(t, folder, finding)
  })
}

t.test('level storage: an undamaged copy of the test data opens', async t => {
  for (const of of [closed, killed]) {
    const folder = newFolder()
    cpSync(of, folder, { recursive: true })
    const { storage, snapshot } = await open(folder)
    t.equal(snapshot.agents.length, size)
    t.equal(snapshot.revision, size)
    await storage.agents.close()
  }
})

/** The values of all records of a closed store, without their checksums. */
async function recordsOf (folder: string): Promise<Map<string, string>> {
  const level = new ClassicLevel(folder, { compression: false })
  const sealed = await level.iterator().all()
  await level.close()
  return new Map(sealed.map(([key, value]) => [key, value.slice(8)]))
}

/** Writes to a closed store without checksums, as another program would. */
async function tamper (folder: string, operations: Operation[]): Promise<void> {
  const level = new ClassicLevel(folder, { compression: false })
  await level.batch(operations)
  await level.close()
}

/** Writes to a closed store with checksums. */
async function write (folder: string, operations: Operation[]): Promise<void> {
  const database = new LevelDatabase(folder, 'commit')
  await database.open()
  database.begin()
  await database.write(operations)
  await database.close({ clean: true })
}

/** A closed store with five agents in two batches. */
async function smallStore (): Promise<string> {
  const folder = newFolder()
  const { storage } = await open(folder)
  await registerMany(storage, 3)
  await registerMany(storage, 2, 'x', 'more')
  await storage.agents.close()
  return folder
}

const put = (key: string, value: string): Operation => ({ type: 'put', key, value })
const del = (key: string): Operation => ({ type: 'del', key })

async function twice (t: Test, folder: string, finding: RegExp): Promise<void> {
  for (const attempt of [1, 2]) {
    await t.rejects(open(folder), { message: finding, code: 'AGENT_REGISTRY_STORE_REFUSED' }, `attempt ${attempt}`)
  }
}

const records: ReadonlyArray<[name: string, key: string, value: string | null, finding: RegExp]> = [
  ['an agent that is not JSON', 'agent!agent-1', '{', /'agent!agent-1' cannot be read/],
  ['an agent that does not match its schema', 'agent!agent-1', '{"revision":-1}', /'agent!agent-1' cannot be read \(breaks its schema\)/],
  ['an agent without its content', 'content!agent-1', null, /agent 'agent-1' is incomplete/],
  ['content without an agent', 'agent!agent-1', null, /agent 'agent-1' is incomplete/],
  ['an agent with a future revision', 'agent!agent-1', 'future', /agent 'agent-1' is newer than the store/],
  ['changes with a gap', 'changes!0000000000000001', null, /change \d+ is missing/],
  ['a store without meta', 'meta', null, /meta is missing/],
  ['a key-value entry that does not match its schema', 'state!session!one', '{}', /'state!session!one' cannot be read/],
  ['a record of another program', 'other', 'x', /other is not a record of a registry/]
]

for (const [name, key, value, finding] of records) {
  t.test(`level storage: ${name} is refused and not skipped`, async t => {
    const folder = await smallStore()
    const stored = await recordsOf(folder)
    const future = JSON.stringify({ ...JSON.parse(stored.get('agent!agent-1') ?? ''), revision: 99 })
    const operations = [value === null ? del(key) : put(key, value === 'future' ? future : value)]
    if (key.startsWith('changes')) operations.push(put('changes!0000000000000003', stored.get('changes!0000000000000004') ?? ''))
    await write(folder, operations)
    await twice(t, folder, finding)
  })
}

t.test('level storage: records that another program wrote, removed or replaced with older ones are refused', async t => {
  const older = await smallStore()
  const level = new ClassicLevel(older, { compression: false })
  const head = await level.get('agent!agent-1') ?? ''
  await level.close()
  const { storage } = await open(older)
  await storage.agents.setState({ id: 'agent-1', state: 'draining', reason: 'asked' })
  await storage.agents.close()
  const table: ReadonlyArray<[operation: Operation, finding: RegExp]> = [
    [put('agent!agent-1', '{}'), /the record 'agent!agent-1' is damaged/],
    [del('agent!agent-1'), /records are missing or outdated/],
    [put('agent!agent-1', head), /records are missing or outdated/],
    [put('manifest', '00000000{}'), /its files are damaged or missing: the manifest is damaged/],
    [del('manifest'), /records are missing or outdated/]
  ]
  for (const [operation, finding] of table) {
    const folder = newFolder()
    cpSync(older, folder, { recursive: true })
    await tamper(folder, [operation])
    await twice(t, folder, finding)
  }
})

/** Converts a closed store to schema 1. `upgraded` records keep their checksums, as after an interrupted upgrade. */
async function downgrade (folder: string, upgraded?: string): Promise<void> {
  const stored = await recordsOf(folder)
  const operations = [...stored].filter(([key]) => key !== upgraded).map(([key, value]) => put(key, value))
  await tamper(folder, [...operations, del('manifest')])
  const header = JSON.stringify({ ...readHeader(folder), schema: 1, sequence: 7 })
  writeFileSync(join(folder, headerName), `${header.padEnd(246)} ${crc32c(Buffer.from(header)).toString(16).padStart(8, '0')}\n`)
}

t.test('level storage: a store of schema 1 is upgraded, also after an interruption, and begins a new epoch', async t => {
  t.equal(crc32c(Buffer.from('123456789')), 0xe3069283, 'RFC 3720')
  for (const upgraded of [undefined, 'agent!agent-1']) {
    const folder = await smallStore()
    const before = await open(folder)
    await before.storage.agents.close()
    await downgrade(folder, upgraded)
    const { storage, snapshot } = await open(folder)
    t.same(snapshot.agents, before.snapshot.agents)
    t.not(snapshot.epoch, before.snapshot.epoch)
    t.same([snapshot.revision, snapshot.changes], [5, []])
    t.equal(readHeader(folder).schema, 2)
    await registerMany(storage, 1, 'x', 'new')
    await storage.agents.close()
    const again = await open(folder)
    t.same([again.snapshot.epoch, again.snapshot.agents.length], [snapshot.epoch, 6])
    await again.storage.agents.close()
  }
})

t.test('level storage: an incomplete store of schema 1 is refused, and the folder is unchanged', async t => {
  const folder = await smallStore()
  await downgrade(folder)
  await tamper(folder, [del('content!agent-1')])
  await refused(t, folder, /agent 'agent-1' is incomplete/)
})

t.test('level storage: a folder without a store is refused and left unchanged', async t => {
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
  await refused(t, arcp, /\(registry_state\.json\)\. Give it an empty or a new folder\. The command import reads the files of ARCP\./)

  await t.rejects(
    open(join(arcp, 'registry_state.json')), { message: /registry_state\.json was not opened: it is a file\. Give it a folder/ }
  )
  await t.rejects(open(join(arcp, 'registry_state.json', 'inside')), { message: /was not opened: a part of its path is a file\. / })
  t.equal(readFileSync(join(arcp, 'registry_state.json'), 'utf8'), '{"agents":{}}')
})

t.test('level storage: an empty folder and one with an unfinished store become stores', async t => {
  const folder = newFolder()
  mkdirSync(join(folder, 'lost+found'), { recursive: true })
  const first = await open(folder)
  t.same(first.snapshot.agents, [])
  await first.storage.agents.close()
  const begun = newFolder()
  mkdirSync(begun)
  createHeader(begun, { ...readHeader(folder), sequence: 0 })
  const second = await open(begun)
  t.same(second.snapshot.agents, [])
  t.not(second.snapshot.epoch, first.snapshot.epoch)
  await second.storage.agents.close()
})

/** Opens a store in another process. @returns its output */
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
  const child = spawn(
    process.execPath, [...process.execArgv, '--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] }
  )
  const [out] = await Promise.all([text(child.stdout), once(child, 'close')])
  return out
}

t.test('level storage: an open store is refused to another opener in this process and in another', async t => {
  const folder = newFolder()
  const { storage } = await open(folder)
  await registerMany(storage, 3)
  await t.rejects(open(folder), { message: /was not opened: another process has it open\. Stop that process/ })
  t.match(await openElsewhere(folder), /another process has it open\. Stop that process/)
  await registerMany(storage, 4)
  await storage.agents.close()
  t.match(await openElsewhere(folder), /^opened$/m)
})

t.test('level storage: a read-only folder is refused', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'level-'))
  chmodSync(folder, 0o555)
  const isRoot = process.geteuid!() === 0
  t.teardown(() => {
    if (isRoot) process.seteuid!(0)
    rmSync(folder, { recursive: true })
  })
  if (isRoot) process.seteuid!('nobody')
  await t.rejects(open(folder), {
    message: /was not opened: .*(may not be written to|[Pp]ermission denied)\. Give it a folder that this user may write to/
  })
  t.same(readdirSync(folder), [])
})
