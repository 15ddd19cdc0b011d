-- Ends all holds, at the bounded rate of expire.lua.
-- include agent-prelude

if redis.call('ZCARD', held) > 0 then redis.call('HSET', meta, 'released', '1') end
return reply('ok')
