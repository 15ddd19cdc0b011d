/**
 * What scripts on logs begin with. KEYS[1] is the prefix with the word `broker`. A log has a head (a hash of its epoch,
 * its newest offset, the offset that the epoch began after, and the bytes added since they were last counted) and a
 * stream of entries `<offset>-0`. ARGV[1]: the latest time to begin, or ''; ARGV[2]: what a new epoch is called;
 * ARGV[3] to ARGV[5]: how many entries, bytes and milliseconds are kept.
 */
export const logPrelude = `
local base = string.sub(KEYS[1], 1, -7)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[1] ~= '' and now > tonumber(ARGV[1]) then return redis.error_reply('LATE the caller has given this up') end
local candidate, mostEntries, mostBytes, age = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local idle = math.min(age, 600000)

local function openLog (name)
  local log = { head = base .. 'log:' .. name, entries = base .. 'entries:' .. name }
  local facts = redis.call('HMGET', log.head, 'epoch', 'offset', 'start', 'bytes')
  if facts[1] then
    log.epoch, log.offset, log.start, log.bytes = facts[1], tonumber(facts[2]), tonumber(facts[3]), tonumber(facts[4])
    return log
  end
  log.epoch, log.offset, log.start, log.bytes = candidate, 0, 0, 0
  redis.call('DEL', log.entries)
  redis.call('HSET', log.head, 'epoch', candidate, 'offset', 0, 'start', 0, 'bytes', 0)
  redis.call('PEXPIRE', log.head, idle)
  return log
end

local function oldestOf (log)
  return redis.call('XRANGE', log.entries, '-', '+', 'COUNT', 1)[1]
end

local function dropOld (log)
  local first = oldestOf(log)
  while first and tonumber(first[2][2]) < now - age do
    redis.call('XDEL', log.entries, first[1])
    first = oldestOf(log)
  end
  return first
end
`

/**
 * Arguments: of each entry its log, what tells it from others that were sent or '', and its text; before them how long
 * that is remembered. Returns of each its epoch and offset, and '1' when it was there before.
 */
export const logsAppend = `
local logs, results = {}, {}

local function countBytes (log)
  local kept, oldest = 0, nil
  for _, entry in ipairs(redis.call('XREVRANGE', log.entries, '+', '-')) do
    local size = #entry[2][4]
    -- Some room is made at once: counting all is not for every entry.
    if oldest and kept + size > mostBytes * 0.75 then
      redis.call('XTRIM', log.entries, 'MINID', oldest)
      break
    end
    kept, oldest = kept + size, entry[1]
  end
  return kept
end

local function store (log, text)
  log.offset, log.bytes = log.offset + 1, log.bytes + #text
  redis.call('XADD', log.entries, 'MAXLEN', mostEntries, log.offset .. '-0', 'at', now, 'entry', text)
  redis.call('PUBLISH', log.head, log.epoch .. ' ' .. log.offset .. ' ' .. now .. '\\n' .. text)
end

for index = 7, #ARGV, 3 do
  local name, sending = ARGV[index], ARGV[index + 1]
  local known = sending ~= '' and redis.call('GET', base .. 'sent:' .. sending)
  if known then
    results[#results + 1] = known .. ' 1'
  else
    local log = logs[name] or openLog(name)
    logs[name] = log
    store(log, ARGV[index + 2])
    local position = log.epoch .. ' ' .. log.offset
    if sending ~= '' then redis.call('SET', base .. 'sent:' .. sending, position, 'PX', ARGV[6]) end
    results[#results + 1] = position
  end
end

for _, log in pairs(logs) do
  dropOld(log)
  if log.bytes > mostBytes then log.bytes = countBytes(log) end
  redis.call('HSET', log.head, 'offset', log.offset, 'bytes', log.bytes)
  redis.call('PEXPIRE', log.head, age)
  redis.call('PEXPIRE', log.entries, age)
end
return results
`

/**
 * Arguments: log, epoch and offset to read after, or '' and 0 for the newest; how many; '1' when of another epoch only
 * what came since it began is wanted. Returns epoch, offset, offset of the oldest entry or the next, and entries.
 */
export const logsRead = `
local log = openLog(ARGV[6])
local first = dropOld(log)
local oldest = first and tonumber(string.match(first[1], '^%d+')) or log.offset + 1
local after, most, entries = tonumber(ARGV[8]), tonumber(ARGV[9]), {}
if ARGV[7] ~= log.epoch or after > log.offset then after = ARGV[10] == '1' and log.start or 0 end
if most > 0 and ARGV[7] == '' then
  entries = redis.call('XREVRANGE', log.entries, '+', '-', 'COUNT', most)
elseif most > 0 then
  entries = redis.call('XRANGE', log.entries, '(' .. after .. '-0', '+', 'COUNT', most)
end
return { log.epoch, log.offset, oldest, entries }
`

/**
 * Arguments: logs, each with the epoch and offset that somebody knows. Returns of each its epoch and offset. These logs
 * are in use: they stay. One that knows less than somebody does has lost entries: it begins a new epoch.
 */
export const logsLocate = `
local results = {}
for index = 6, #ARGV, 3 do
  local log = openLog(ARGV[index])
  if log.epoch == ARGV[index + 1] and log.offset < tonumber(ARGV[index + 2]) then
    log.epoch = candidate
    redis.call('HSET', log.head, 'epoch', candidate, 'start', log.offset)
  end
  redis.call('PEXPIRE', log.head, age)
  results[#results + 1] = log.epoch .. ' ' .. log.offset
end
return results
`
