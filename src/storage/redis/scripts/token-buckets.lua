-- Token buckets by GCRA: the state of a bucket is the time at which it is full again. A full bucket has no key.
-- ARGV[4]: tokens of a full bucket. ARGV[5]: time in which an empty bucket fills (ms). Names of buckets begin at ARGV[6].
-- include kv-prelude

local window = tonumber(ARGV[5])
local interval = window / tonumber(ARGV[4])

local function fullAtOf (name)
  return math.max(now, tonumber(redis.call('GET', base .. 'tokens:' .. name) or now))
end

local function keep (name, fullAt)
  local key = base .. 'tokens:' .. name
  if fullAt <= now + 1e-6 then return redis.call('DEL', key) end
  redis.call('SET', key, string.format('%.6f', fullAt), 'PX', math.ceil(fullAt - now) + 1000)
end
