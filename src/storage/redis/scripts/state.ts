/**
 * What scripts on shared facts begin with. KEYS[1] is the prefix with a last word. A kind is a hash of values and a
 * sorted set of their ends; what has ended is never seen, and goes with the next writes. ARGV[1]: the latest time
 * to begin, or ''; ARGV[2]: the time, or '' for that of Redis; ARGV[3]: who asks.
 */
export const statePrelude = `
local base = string.sub(KEYS[1], 1, -6)
local time = redis.call('TIME')
local real = time[1] * 1000 + time[2] / 1000
if ARGV[1] ~= '' and real > tonumber(ARGV[1]) then return redis.error_reply('LATE the caller has given this up') end
local now = ARGV[2] == '' and math.floor(real) or tonumber(ARGV[2])

local function placeOf (kind)
  return base .. 'state:' .. kind, base .. 'ends:' .. kind
end

local function read (kind, key)
  local values, ends = placeOf(kind)
  local till = tonumber(redis.call('ZSCORE', ends, key) or 0)
  if till <= now then return nil end
  return redis.call('HGET', values, key), till
end

local function drop (kind, ids)
  local values, ends = placeOf(kind)
  for _, key in ipairs(ids) do
    redis.call('HDEL', values, key)
    redis.call('ZREM', ends, key)
  end
end

local function tell (kind, key, value, till)
  redis.call('PUBLISH', base .. 'messages', cjson.encode({ type = 'state', call = ARGV[3], entry = { kind = kind, key = key, value = value or cjson.null, ['until'] = till } }))
end
`

/** Arguments: kind, key. */
export const stateGet = `
local value = read(ARGV[4], ARGV[5])
return value or false
`

/**
 * Arguments: kind, key, value, until, '' or 'none' or 'is', what it must be, most entries or '', '1' when it is told.
 * Returns whether it was told, and what became of it.
 */
export const statePut = `
local kind, key, value, till = ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7])
local values, ends = placeOf(kind)
local known = read(kind, key)
if ARGV[8] == 'none' and known then return { 0, 'refused' } end
if ARGV[8] == 'is' and known ~= ARGV[9] then return { 0, 'refused' } end
drop(kind, redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, 100))
local tells = ARGV[11] == '1'
if till <= now then
  drop(kind, { key })
  tells = tells and known ~= nil
  if tells then tell(kind, key, nil, now) end
  return { tells and 1 or 0, 'gone' }
end
redis.call('HSET', values, key, value)
redis.call('ZADD', ends, ARGV[7], key)
if ARGV[10] ~= '' then
  local over = redis.call('ZCARD', ends) - tonumber(ARGV[10])
  if over > 0 then drop(kind, redis.call('ZRANGE', ends, 0, over - 1)) end
end
if tells then tell(kind, key, value, till) end
return { tells and 1 or 0, 'put' }
`

/** Arguments: kind, key, '1' when it is told. Returns whether it was told, and what it was. */
export const stateTake = `
local value = read(ARGV[4], ARGV[5])
drop(ARGV[4], { ARGV[5] })
local tells = value and ARGV[6] == '1'
if tells then tell(ARGV[4], ARGV[5], nil, now) end
return { tells and 1 or 0, value or false }
`

/** Arguments: kinds. Returns of each kind the keys, values and ends. */
export const stateList = `
local lists = {}
for index = 4, #ARGV do
  local values, ends = placeOf(ARGV[index])
  local list = redis.call('ZRANGEBYSCORE', ends, string.format('(%.3f', now), '+inf', 'WITHSCORES')
  local entries = {}
  for position = 1, #list, 2 do
    local value = redis.call('HGET', values, list[position])
    if value then entries[#entries + 1] = { list[position], value, list[position + 1] } end
  end
  lists[#lists + 1] = entries
end
return lists
`

/** A bucket is a hash that ends when it is full. */
const buckets = `
local burst, window = tonumber(ARGV[4]), tonumber(ARGV[5])
local perMs = burst / window
local function tokensOf (name)
  local facts = redis.call('HMGET', base .. 'bucket:' .. name, 'tokens', 'at')
  if not facts[1] then return burst end
  return math.min(burst, tonumber(facts[1]) + math.max(0, now - tonumber(facts[2])) * perMs)
end
local function keep (name, tokens)
  local key = base .. 'bucket:' .. name
  if tokens >= burst - 1e-9 then return redis.call('DEL', key) end
  redis.call('HSET', key, 'tokens', tokens, 'at', now)
  redis.call('PEXPIRE', key, math.ceil((burst - tokens) / perMs) + 1000)
end
`

/** Arguments: burst, window, names. Returns milliseconds to wait as text, or false when one of each was taken. */
export const bucketsDraw = `${buckets}
local least = burst
for index = 6, #ARGV do least = math.min(least, tokensOf(ARGV[index])) end
if least < 1 - 1e-9 then return string.format('%.6f', (1 - least) / perMs) end
for index = 6, #ARGV do keep(ARGV[index], tokensOf(ARGV[index]) - 1) end
return false
`

/** Arguments: burst, window, names. */
export const bucketsGiveBack = `${buckets}
for index = 6, #ARGV do keep(ARGV[index], math.min(burst, tokensOf(ARGV[index]) + 1)) end
return 1
`
