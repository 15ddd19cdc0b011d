-- Removes an agent. ARGV: id, incarnation or '', reason, digest of the key that must own the agent or ''.
-- include agent-prelude

local id = ARGV[13]
local was = find(id)
if not was then return reply('not-found') end
if isStale(was, ARGV[14]) then return reply('stale-incarnation') end
if ARGV[16] ~= '' and was.ownerKey ~= ARGV[16] then return reply('not-owner') end
remove(id, was, ARGV[15])
return reply('ok')
