/** Arguments: id and incarnation or '' of each sign. Returns for each the number of the record's revision, -1 when it is not there, -2 when it is stale. */
export const renew = `
local results = {}
for index = 13, #ARGV, 2 do results[#results + 1] = sign(ARGV[index], ARGV[index + 1]) end
return reply('ok', results)
`

/**
 * Arguments: id, incarnation or '', what the caller believes is reported, and the new values as JSON. A report is kept
 * as the time, a line break and the values. Returns as \`renew\` does; where something else was reported, that.
 */
export const report = `
local results = {}
for index = 13, #ARGV, 4 do
  local id = ARGV[index]
  local result = sign(id, ARGV[index + 1])
  if result > 0 then
    local stored = redis.call('HGET', reports, id) or ''
    if stored ~= ARGV[index + 2] then result = stored
    else redis.call('HSET', reports, id, string.format('%.0f', now) .. '\\n' .. ARGV[index + 3]) end
  end
  results[#results + 1] = result
end
return reply('ok', results)
`

/**
 * Takes leases that have ended, holds that have, and with a first argument of '1' graves: at most 500 in all. What a
 * sweep decided of more leases than that holds for the rest of them too. See \`Preservation\` for the rules.
 */
export const expire = `
local budget = 500
local function ready (queue, limit)
  if budget <= 0 then return {} end
  local ids = redis.call('ZRANGEBYSCORE', queue, '-inf', string.format('(%.0f', limit), 'LIMIT', 0, budget)
  budget = budget - #ids
  return ids
end
local function bury (id, was, reason)
  if was.held then forget(id) else redis.call('ZREM', queueOf(was.state), id) end
  redis.call('ZADD', graves, exact + retentionMs, id)
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

standUp()
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

-- An id without a head is of something that this version does not know.
local function each (queue, ids, act, reason)
  for _, id in ipairs(ids) do
    local was = find(id)
    if was then act(id, was, reason) else redis.call('ZREM', queue, id) end
  end
end
local before, holds = decision()
each(deadlines, ready(deadlines, before), holds and hold or bury, 'lease-expired')
each(leaving, ready(leaving, limit), bury, 'lease-expired')

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
    each(held, ids, bury, 'preservation-ended')
  end
end

if ARGV[13] == '1' then
  each(graves, ready(graves, now + 1), remove, 'retention')
end
return reply('ok', 500 - budget)
`

/** Lets go of what is held. */
export const release = `
if redis.call('ZCARD', held) > 0 then redis.call('HSET', meta, 'released', '1') end
return reply('ok')
`

/**
 * Gives these agents time, up to a whole lease from now. Arguments: milliseconds, '1' for the first call of several,
 * and the ids.
 */
export const extend = `
local ms = tonumber(ARGV[13])
local function lengthen (queue, id, most)
  local score = redis.call('ZSCORE', queue, id)
  if not score then return false end
  local later = math.min(tonumber(score) + ms, most)
  if later > tonumber(score) then redis.call('ZADD', queue, later, id) end
  return true
end
for index = 15, #ARGV do
  local id = ARGV[index]
  local _ = lengthen(deadlines, id, exact + leaseMs - shift) or lengthen(leaving, id, exact + leaseMs - shift) or lengthen(held, id, exact - shift)
end
local credited = tonumber(redis.call('HGET', meta, 'creditedAt') or 0)
if ARGV[14] == '1' and credited > 0 then redis.call('HSET', meta, 'creditedAt', math.min(now, credited + ms)) end
return reply('ok')
`
