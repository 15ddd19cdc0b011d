-- The shared part of all scripts on agents. KEYS[1] is the hash `meta`; all other keys have its prefix and hash tag.
--
-- meta        epoch, revision, schema, mark of the last change, shift, state of the sweep
-- agents      id -> content, which scripts do not parse
-- heads       id -> JSON of the members that changes determine
-- seen        id -> time of the last heartbeat
-- reports     id -> time and values of the last report
-- deadlines   id -> end of the lease
-- leaving     the same for agents that announced their absence, which self-preservation does not count
-- held        id -> start of the hold
-- graves      id -> end of the retention of a dead agent
-- keys        digest of a key -> number of its agents
-- ended       how many leases ended at which time
-- changes     the stream of changes
--
-- The scores of `deadlines`, `leaving` and `held` are less the `shift` in `meta`, so that one write extends all of them.
-- They have fractions of milliseconds, so that leases end in the order of their renewals.
--
-- A Redis that knows less than the caller has lost writes: then a new epoch begins before anything else. Each change
-- carries a mark and the mark of its predecessor, so that a number that was lost and assigned again is recognized.
--
-- ARGV[1]   epoch that the caller knows
-- ARGV[2]   number of the newest change that the caller knows
-- ARGV[3]   name of a new epoch, if one begins
-- ARGV[4]   latest time at which the script may begin, or ''
-- ARGV[5]   time that replaces the time of Redis, or '' (for tests)
-- ARGV[6]   length of a lease (ms)
-- ARGV[7]   length of the retention (ms)
-- ARGV[8]   '1' when self-preservation is enabled
-- ARGV[9]   number of changes to keep in the stream
-- ARGV[10]  gap between two calls of pulse that counts as a standstill (ms)
-- ARGV[11]  id of the calling process
-- ARGV[12]  mark of the newest change that the caller knows
-- The arguments of a script begin at ARGV[13].
--
-- Every script returns { epoch, revision, time of Redis, now, changes, status, result }.

local schemaVersion = 1
local meta = KEYS[1]
local base = string.sub(meta, 1, -5)
local agents, heads, seen, reports = base .. 'agents', base .. 'heads', base .. 'seen', base .. 'reports'
local deadlines, leaving, held, tombstones = base .. 'deadlines', base .. 'leaving', base .. 'held', base .. 'graves'
local keys, ended, changes = base .. 'keys', base .. 'ended', base .. 'changes'
local leaseMs, retentionMs, preserves = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8] == '1'
local streamLength, standstillMs, process, knownLast = ARGV[9], tonumber(ARGV[10]), ARGV[11], ARGV[12]

local time = redis.call('TIME')
local real = time[1] * 1000 + time[2] / 1000
if ARGV[4] ~= '' and real > tonumber(ARGV[4]) then return redis.error_reply('LATE the caller has timed out') end
local exact = ARGV[5] == '' and real or tonumber(ARGV[5])
local now = math.floor(exact)

local facts = redis.call('HMGET', meta, 'epoch', 'revision', 'shift', 'schema', 'last')
local epoch, revision, shift, last = facts[1], tonumber(facts[2] or 0), tonumber(facts[3] or 0), facts[5] or ''
if tonumber(facts[4] or 0) > schemaVersion then return redis.error_reply('SCHEMA ' .. facts[4]) end
local function beginEpoch ()
  local newest = redis.call('XREVRANGE', changes, '+', '-', 'COUNT', 1)[1]
  epoch, last = ARGV[3], ''
  revision = math.max(revision, tonumber(ARGV[2]), newest and tonumber(string.match(newest[1], '%d+')) or 0)
  redis.call('HSET', meta, 'epoch', epoch, 'revision', revision, 'last', last, 'schema', schemaVersion)
end
if not epoch or (epoch == ARGV[1] and revision < tonumber(ARGV[2])) then beginEpoch() end

local published = {}
local function reply (status, extra)
  return { epoch, revision, string.format('%.3f', real), now, published, status, extra or false }
end

local function find (id)
  local text = redis.call('HGET', heads, id)
  return text and cjson.decode(text) or nil
end

local function queueOf (state)
  return (state == 'draining' or state == 'maintenance') and leaving or deadlines
end

local function isStale (head, incarnation)
  return incarnation ~= '' and tonumber(incarnation) < head.incarnation
end

local function forget (id)
  redis.call('ZREM', held, id)
  if redis.call('ZCARD', held) == 0 then redis.call('HDEL', meta, 'released') end
end

local function countKey (key, by)
  if key and redis.call('HINCRBY', keys, key, by) <= 0 then redis.call('HDEL', keys, key) end
end

-- Renews the lease of an agent that will be in this state.
local function renew (id, was, state)
  local queue = queueOf(state)
  redis.call('ZADD', queue, exact + leaseMs - shift, id)
  if not was then return end
  if was.held then forget(id) end
  if was.state == 'dead' then redis.call('ZREM', tombstones, id) end
  if queueOf(was.state) ~= queue then redis.call('ZREM', queueOf(was.state), id) end
end

-- Publishes the change with the current revision. `content` and `formerly` are nil when the content is unchanged.
local function publish (event, id, reason, was, head, at, content, formerly)
  local number = string.format('%.0f', revision)
  local wasSeen = tonumber(redis.call('HGET', seen, id) or nil)
  local metrics = redis.call('HGET', reports, id)
  local mark = string.format('%.3f', real) .. process
  local change = cjson.encode({
    epoch = epoch, mark = mark, after = last, by = process, event = event, id = id, reason = reason,
    was = was, wasSeen = wasSeen, head = head, seen = at or wasSeen
  })
  local fields = { 'change', change }
  for name, text in pairs({ content = content, formerly = formerly, metrics = metrics or nil }) do
    fields[#fields + 1] = name
    fields[#fields + 1] = text
  end
  last = mark
  redis.call('HSET', meta, 'revision', number, 'last', last)
  redis.call('XADD', changes, 'MAXLEN', '~', streamLength, number .. '-0', unpack(fields))
  published[#published + 1] = { number, change, metrics or false, event == 'unregistered' and formerly or false }
end

-- Changes members of a head and publishes the change; false removes a member. Returns the new head.
local function change (event, id, reason, was, to, at, content, formerly)
  local head = {}
  for name, value in pairs(was or {}) do head[name] = value end
  for name, value in pairs(to) do head[name] = value or nil end
  revision = revision + 1
  head.revision = revision
  head.created = head.created or revision
  redis.call('HSET', heads, id, cjson.encode(head))
  publish(event, id, reason, was, head, at, content, formerly)
  if at then redis.call('HSET', seen, id, string.format('%.0f', at)) end
  return head
end

local function remove (id, was, reason)
  local content = redis.call('HGET', agents, id)
  revision = revision + 1
  publish('unregistered', id, reason, was, nil, nil, nil, content)
  for _, key in ipairs({ agents, heads, seen, reports }) do redis.call('HDEL', key, id) end
  for _, key in ipairs({ deadlines, leaving, tombstones }) do redis.call('ZREM', key, id) end
  if was.held then forget(id) end
  countKey(was.ownerKey, -1)
end

local function heartbeat (id, incarnation)
  local was = find(id)
  if not was then return -1 end
  if isStale(was, incarnation) then return -2 end
  local state = (was.state == 'draining' or was.state == 'maintenance') and was.state or 'alive'
  renew(id, was, state)
  if state == was.state and not was.held then
    redis.call('HSET', seen, id, string.format('%.0f', now))
    return was.revision
  end
  local reason = was.state == 'dead' and 'revived' or was.state == 'starting' and 'first-sign' or 'resumed'
  return change('alive', id, reason, was, { state = state, held = false }, now).revision
end

-- When Redis or all processes stood still, extends every lease by that time, once for all processes.
local function compensateStandstill ()
  local stamp = tonumber(redis.call('HGET', meta, 'stamp') or real)
  local gap = math.ceil(real - stamp)
  if gap > standstillMs then
    shift = shift + gap
    redis.call('HSET', meta, 'shift', shift)
    local credited = tonumber(redis.call('HGET', meta, 'creditedAt') or 0)
    if credited > 0 then redis.call('HSET', meta, 'creditedAt', math.min(now, credited + gap)) end
  end
  redis.call('HSET', meta, 'stamp', string.format('%.3f', math.max(real, stamp)))
end
