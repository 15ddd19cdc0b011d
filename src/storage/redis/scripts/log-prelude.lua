-- The shared part of all scripts on message logs. KEYS[1] is the prefix followed by `broker`. A log has a head and a stream
-- of entries with the ids `<offset>-0`. The head is a hash: the epoch, the newest offset, the offset at which the epoch
-- began, and the bytes that were added since they were last counted.
--
-- ARGV[1]  latest time at which the script may begin, or ''
-- ARGV[2]  name of a new epoch, if one begins
-- ARGV[3]  number of entries to keep
-- ARGV[4]  bytes to keep
-- ARGV[5]  milliseconds to keep entries
-- The arguments of a script begin at ARGV[6].

local base = string.sub(KEYS[1], 1, -7)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[1] ~= '' and now > tonumber(ARGV[1]) then return redis.error_reply('LATE the caller has timed out') end
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
