-- Ends leases and holds and, with ARGV[13] = '1', retentions: at most 500 in all. When more leases are due, the decision of
-- the sweep that began applies to all of them. The rules are those of SelfPreservation in memory/leases.ts.
-- include agent-prelude

local budget = 500
local function ready (queue, limit)
  if budget <= 0 then return {} end
  local ids = redis.call('ZRANGEBYSCORE', queue, '-inf', string.format('(%.0f', limit), 'LIMIT', 0, budget)
  budget = budget - #ids
  return ids
end
local function markDead (id, was, reason)
  if was.held then forget(id) else redis.call('ZREM', queueOf(was.state), id) end
  redis.call('ZADD', tombstones, exact + retentionMs, id)
  change('dead', id, reason, was, { state = 'dead', held = false })
end
local function hold (id, was)
  redis.call('ZREM', deadlines, id)
  redis.call('ZADD', held, exact - shift, id)
  change('state', id, 'protected', was, { state = 'suspect', held = true })
end
local function fleet ()
  return redis.call('ZCARD', deadlines) + redis.call('ZCARD', leaving) + redis.call('ZCARD', held)
end

local function decide (count)
  if not preserves then return false end
  redis.call('ZREMRANGEBYSCORE', ended, '-inf', now - leaseMs)
  redis.call('ZADD', ended, now, string.format('%.0f:%.0f', revision, count))
  local sum, n = 0, fleet()
  for _, entry in ipairs(redis.call('ZRANGE', ended, 0, -1)) do sum = sum + tonumber(string.match(entry, '%d+$')) end
  return n >= 10 and sum > math.max(3, 0.15 * n)
end

compensateStandstill()
local limit = now + 1 - shift
local function countDue (before)
  return redis.call('ZCOUNT', deadlines, '-inf', string.format('(%.0f', before))
end
local function decision ()
  local burst = redis.call('HMGET', meta, 'burstLimit', 'burstHeld')
  local rest = burst[1] and math.min(limit, tonumber(burst[1]))
  if rest and countDue(rest) > 0 then return rest, burst[2] == '1' end
  if rest then redis.call('HDEL', meta, 'burstLimit', 'burstHeld') end
  local count = countDue(limit)
  local holds = count > 0 and decide(count)
  if count > budget then redis.call('HSET', meta, 'burstLimit', limit, 'burstHeld', holds and '1' or '0') end
  return limit, holds
end

-- An id without a head is left over: it is dropped.
local function each (queue, ids, act, reason)
  for _, id in ipairs(ids) do
    local was = find(id)
    if was then act(id, was, reason) else redis.call('ZREM', queue, id) end
  end
end
local before, holds = decision()
each(deadlines, ready(deadlines, before), holds and hold or markDead, 'lease-expired')
each(leaving, ready(leaving, limit), markDead, 'lease-expired')

local function allowance ()
  local facts = redis.call('HMGET', meta, 'creditedAt', 'rate', 'credit')
  local credited, rate, credit = tonumber(facts[1] or 0), tonumber(facts[2] or 0), tonumber(facts[3] or 0)
  if credited == 0 then rate, credit = math.max(1, 0.15 * fleet()) / 1000, 1
  else credit = credit + math.max(0, now - credited) * rate end
  local whole = math.min(math.floor(credit + 1e-9), budget)
  redis.call('HSET', meta, 'creditedAt', now, 'rate', rate, 'credit', credit - whole)
  return whole
end
local released = redis.call('HGET', meta, 'released')
local heldUntil = released and '+inf' or string.format('(%.0f', limit - 3 * leaseMs)
if redis.call('ZCOUNT', held, '-inf', heldUntil) == 0 then
  redis.call('HDEL', meta, 'creditedAt')
else
  local whole = allowance()
  if whole > 0 then
    local ids = redis.call('ZRANGEBYSCORE', held, '-inf', heldUntil, 'LIMIT', 0, whole)
    budget = budget - #ids
    each(held, ids, markDead, 'preservation-ended')
  end
end

if ARGV[13] == '1' then
  each(tombstones, ready(tombstones, now + 1), remove, 'retention')
end
return reply('ok', 500 - budget)
