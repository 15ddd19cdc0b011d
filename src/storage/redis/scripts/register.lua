-- Registers an agent. ARGV: id, content, kind of the claim, digest of the key or '', '1' when the claim is exclusive,
-- maximum number of agents of the key or '', maximum number of agents.
-- include agent-prelude

local id, content, kind, digest, exclusive = ARGV[13], ARGV[14], ARGV[15], ARGV[16], ARGV[17] == '1'
local was = find(id)
local ownerKey = was and was.ownerKey
if was and kind == 'key' and not exclusive and was.state ~= 'dead' and not (was.state == 'suspect' and ownerKey == digest) then
  return reply('taken')
end
if not was and redis.call('HLEN', heads) >= tonumber(ARGV[19]) then return reply('full') end
if kind == 'key' and ARGV[18] ~= '' and ownerKey ~= digest and tonumber(redis.call('HGET', keys, digest) or 0) >= tonumber(ARGV[18]) then
  return reply('key-full')
end
countKey(ownerKey, -1)
if kind == 'key' or not ownerKey then ownerKey = digest ~= '' and digest or nil end
countKey(ownerKey, 1)
local incarnation = math.max(tonumber(redis.call('HGET', meta, 'incarnation') or 0) + 1, now)
redis.call('HSET', meta, 'incarnation', string.format('%.0f', incarnation))
local former = redis.call('HGET', agents, id)
local changed = former ~= content
if changed then redis.call('HSET', agents, id, content) end
renew(id, was, 'starting')
change('registered', id, was and 'replaced' or 'created', was, {
  ownerKey = ownerKey or false, registeredAt = was and was.registeredAt or now, incarnation = incarnation, state = 'starting', held = false
}, now, changed and content or nil, changed and former or nil)
return reply(was and 'replaced' or 'created')
