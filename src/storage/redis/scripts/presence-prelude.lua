-- The shared part of all scripts on presence sets. KEYS[1] is the prefix followed by `broker`.
--
-- place:<set>        hash: '<process> <peer>' -> metadata, ' <peer>' -> number of processes that have the peer in the set
-- members:<process>  set: the sets and peers of a process
-- processes          sorted set: process -> time until which it counts as running
-- presence           the newest revision
--
-- ARGV[1]  latest time at which the script may begin, or ''
-- ARGV[2]  id of the calling process
-- ARGV[3]  how long the process counts as running from now on (ms)
-- The arguments of a script begin at ARGV[4].

local base = string.sub(KEYS[1], 1, -7)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[1] ~= '' and now > tonumber(ARGV[1]) then return redis.error_reply('LATE the caller has timed out') end
local process, leaseMs = ARGV[2], tonumber(ARGV[3])
local newest

local function newestRevision ()
  newest = newest or tonumber(redis.call('GET', base .. 'presence') or now - 1)
  return newest
end

local function isExpired (name)
  local till = redis.call('ZSCORE', base .. 'processes', name)
  return not till or tonumber(till) <= now
end

local function renew ()
  redis.call('ZADD', base .. 'processes', now + leaseMs, process)
end

-- Revisions are not less than the time, so that they grow also after Redis lost the newest one.
local function publish (key, owner, op, isWhole, peer, metadata)
  newest = math.max(newestRevision() + 1, now)
  local revision = string.format('%.0f', newest)
  redis.call('PUBLISH', key, op .. ' ' .. (isWhole and 1 or 0) .. ' ' .. revision .. ' ' .. owner .. ' ' .. peer .. '\n' .. metadata)
end

local function keepRevision ()
  if newest then redis.call('SET', base .. 'presence', string.format('%.0f', newest)) end
end

local function leave (owner, set, peer)
  local key = base .. 'place:' .. set
  local metadata = redis.call('HGET', key, owner .. ' ' .. peer)
  if not metadata then return end
  redis.call('HDEL', key, owner .. ' ' .. peer)
  redis.call('SREM', base .. 'members:' .. owner, set .. '\n' .. peer)
  local isWhole = redis.call('HINCRBY', key, ' ' .. peer, -1) <= 0
  if isWhole then redis.call('HDEL', key, ' ' .. peer) end
  publish(key, owner, 'leave', isWhole, peer, metadata)
end
