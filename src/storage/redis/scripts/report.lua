-- Stores reports of metrics, which are heartbeats too. ARGV of each: id, incarnation or '', the report that the caller
-- expects to be stored, the new values as JSON. A report is stored as the time, a line break and the values. The result is
-- that of renew.lua, or the stored report when it is not the expected one.
-- include agent-prelude

local results = {}
for index = 13, #ARGV, 4 do
  local id = ARGV[index]
  local result = heartbeat(id, ARGV[index + 1])
  if result > 0 then
    local stored = redis.call('HGET', reports, id) or ''
    if stored ~= ARGV[index + 2] then result = stored
    else redis.call('HSET', reports, id, string.format('%.0f', now) .. '\n' .. ARGV[index + 3]) end
  end
  results[#results + 1] = result
end
return reply('ok', results)
