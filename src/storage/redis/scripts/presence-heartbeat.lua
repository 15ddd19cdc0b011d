-- Renews the lease of the calling process. Returns '1' when it had counted as ended, otherwise '0'; then the ids of
-- processes that have ended.
-- include presence-prelude

local wasExpired = isExpired(process)
renew()
local dead = redis.call('ZRANGEBYSCORE', base .. 'processes', '-inf', now, 'LIMIT', 0, 100)
return { wasExpired and '1' or '0', unpack(dead) }
