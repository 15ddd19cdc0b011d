-- The shared part of all scripts on key-value entries. KEYS[1] is the prefix followed by `state`. Each kind has a hash of
-- values and a sorted set of expiry times. Expired entries are not returned, and are deleted by later writes.
--
-- ARGV[1]  latest time at which the script may begin, or ''
-- ARGV[2]  time that replaces the time of Redis, or '' (for tests)
-- ARGV[3]  id of the call, which the published event carries
-- The arguments of a script begin at ARGV[4].

local base = string.sub(KEYS[1], 1, -6)
local time = redis.call('TIME')
local real = time[1] * 1000 + time[2] / 1000
if ARGV[1] ~= '' and real > tonumber(ARGV[1]) then return redis.error_reply('LATE the caller has timed out') end
local now = ARGV[2] == '' and math.floor(real) or tonumber(ARGV[2])

local function keysOf (kind)
  return base .. 'state:' .. kind, base .. 'ends:' .. kind
end

local function read (kind, key)
  local values, ends = keysOf(kind)
  local till = tonumber(redis.call('ZSCORE', ends, key) or 0)
  if till <= now then return nil end
  return redis.call('HGET', values, key), till
end

local function drop (kind, ids)
  local values, ends = keysOf(kind)
  for _, key in ipairs(ids) do
    redis.call('HDEL', values, key)
    redis.call('ZREM', ends, key)
  end
end

local function publish (kind, key, value, till)
  local entry = { kind = kind, key = key, value = value or cjson.null, ['until'] = till }
  redis.call('PUBLISH', base .. 'messages', cjson.encode({ type = 'state', call = ARGV[3], entry = entry }))
end
