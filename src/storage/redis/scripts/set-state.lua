-- Sets the state of an agent. ARGV: id, incarnation or '', state, reason. The result is the revision of the record.
-- include agent-prelude

local id, wanted, reason = ARGV[13], ARGV[15], ARGV[16]
local was = find(id)
if not was then return reply('not-found') end
if isStale(was, ARGV[14]) then return reply('stale-incarnation') end
local state, at = wanted, now
if wanted == 'suspect' then
  at = nil
  if was.state ~= 'alive' and was.state ~= 'starting' then state = was.state end
else
  renew(id, was, state)
end
if state ~= was.state then
  local to = { state = state, held = false }
  return reply('ok', change(state == 'alive' and 'alive' or 'state', id, reason, was, to, at).revision)
end
if at then redis.call('HSET', seen, id, string.format('%.0f', at)) end
return reply('ok', was.revision)
