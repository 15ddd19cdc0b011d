-- Extends the leases of agents, at most to a full lease from now. ARGV: milliseconds, '1' for the first of several calls,
-- and the ids.
-- include agent-prelude

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
  local most = exact + leaseMs - shift
  if not lengthen(deadlines, id, most) and not lengthen(leaving, id, most) then lengthen(held, id, exact - shift) end
end
local credited = tonumber(redis.call('HGET', meta, 'creditedAt') or 0)
if ARGV[14] == '1' and credited > 0 then redis.call('HSET', meta, 'creditedAt', math.min(now, credited + ms)) end
return reply('ok')
