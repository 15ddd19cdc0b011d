-- Replaces the content of an agent. ARGV: id, content, revision that the content is based on. A revision of another epoch
-- never matches.
-- include agent-prelude

local id, content = ARGV[13], ARGV[14]
local was = find(id)
if not was then return reply('not-found') end
if was.revision ~= tonumber(ARGV[15]) or epoch ~= ARGV[1] then return reply('conflict') end
local former = redis.call('HGET', agents, id)
local changed = former ~= content
if changed then redis.call('HSET', agents, id, content) end
change('updated', id, 'patched', was, {}, nil, changed and content or nil, changed and former or nil)
return reply('ok')
