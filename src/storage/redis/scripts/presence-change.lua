-- Changes the sets of the calling process. ARGV of each change: 'enter', 'leave' or 'stay' (an enter that is published only
-- if it changes something), set, peer, metadata. Returns '1' when the process had counted as ended, otherwise '0'.
-- include presence-prelude

local wasExpired = isExpired(process)
if wasExpired then renew() end

local function enter (set, peer, metadata, isQuiet)
  local key, field = base .. 'place:' .. set, process .. ' ' .. peer
  local known = redis.call('HGET', key, field)
  if known == metadata and isQuiet then return end
  redis.call('HSET', key, field, metadata)
  if known then return publish(key, process, 'update', false, peer, metadata) end
  redis.call('SADD', base .. 'members:' .. process, set .. '\n' .. peer)
  publish(key, process, 'enter', redis.call('HINCRBY', key, ' ' .. peer, 1) == 1, peer, metadata)
end

for index = 4, #ARGV, 4 do
  local op, set, peer, metadata = ARGV[index], ARGV[index + 1], ARGV[index + 2], ARGV[index + 3]
  if op == 'leave' then leave(process, set, peer) else enter(set, peer, metadata, op == 'stay') end
end
keepRevision()
return wasExpired and '1' or '0'
