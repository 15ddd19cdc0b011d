-- Puts an entry. ARGV: kind, key, value, until; '' for no condition, 'none' or 'is'; the value that must be present for
-- 'is'; maximum number of entries of the kind or ''; '1' to publish the change. Returns whether it was published, and
-- 'put', 'gone' (already expired) or 'refused' (the condition is not met).
-- include kv-prelude

local kind, key, value, till = ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7])
local values, ends = keysOf(kind)
local known = read(kind, key)
if ARGV[8] == 'none' and known then return { 0, 'refused' } end
if ARGV[8] == 'is' and known ~= ARGV[9] then return { 0, 'refused' } end
drop(kind, redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, 100))
local publishes = ARGV[11] == '1'
if till <= now then
  drop(kind, { key })
  publishes = publishes and known ~= nil
  if publishes then publish(kind, key, nil, now) end
  return { publishes and 1 or 0, 'gone' }
end
redis.call('HSET', values, key, value)
redis.call('ZADD', ends, ARGV[7], key)
if ARGV[10] ~= '' then
  local over = redis.call('ZCARD', ends) - tonumber(ARGV[10])
  if over > 0 then drop(kind, redis.call('ZRANGE', ends, 0, over - 1)) end
end
if publishes then publish(kind, key, value, till) end
return { publishes and 1 or 0, 'put' }
