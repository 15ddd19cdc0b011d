/**
 * What scripts on places begin with. KEYS[1] is the prefix with the word `broker`. A place is a hash with the metadata of
 * `<process> <peer>`, and with ` <peer>` → by how many processes that peer is there. `members:<process>` says where a
 * process has peers, `processes` until when it is believed to live. ARGV[1]: the latest time to begin, or ''; ARGV[2]: the
 * process that asks; ARGV[3]: how long it is believed to live from now on.
 */
export const placePrelude = `
local base = string.sub(KEYS[1], 1, -7)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[1] ~= '' and now > tonumber(ARGV[1]) then return redis.error_reply('LATE the caller has given this up') end
local process, leaseMs = ARGV[2], tonumber(ARGV[3])
local newest

local function newestRevision ()
  newest = newest or tonumber(redis.call('GET', base .. 'presence') or now - 1)
  return newest
end

local function isOver (name)
  local till = redis.call('ZSCORE', base .. 'processes', name)
  return not till or tonumber(till) <= now
end

local function renew ()
  redis.call('ZADD', base .. 'processes', now + leaseMs, process)
end

-- Not below the time: revisions do not fall when this was lost.
local function tell (key, of, op, isWhole, peer, metadata)
  newest = math.max(newestRevision() + 1, now)
  local revision = string.format('%.0f', newest)
  redis.call('PUBLISH', key, op .. ' ' .. (isWhole and 1 or 0) .. ' ' .. revision .. ' ' .. of .. ' ' .. peer .. '\\n' .. metadata)
end

local function keepRevision ()
  if newest then redis.call('SET', base .. 'presence', string.format('%.0f', newest)) end
end

local function leave (of, place, peer)
  local key = base .. 'place:' .. place
  local metadata = redis.call('HGET', key, of .. ' ' .. peer)
  if not metadata then return end
  redis.call('HDEL', key, of .. ' ' .. peer)
  redis.call('SREM', base .. 'members:' .. of, place .. '\\n' .. peer)
  local isWhole = redis.call('HINCRBY', key, ' ' .. peer, -1) <= 0
  if isWhole then redis.call('HDEL', key, ' ' .. peer) end
  tell(key, of, 'leave', isWhole, peer, metadata)
end
`

/**
 * Arguments: of each change `enter`, `leave` or `stay` (an enter that is told only when it changes something), the place,
 * the peer and the metadata. Returns '1' when the process was not believed to live.
 */
export const placesChange = `
local wasOver = isOver(process)
if wasOver then renew() end

local function enter (place, peer, metadata, isQuiet)
  local key, field = base .. 'place:' .. place, process .. ' ' .. peer
  local known = redis.call('HGET', key, field)
  if known == metadata and isQuiet then return end
  redis.call('HSET', key, field, metadata)
  if known then return tell(key, process, 'update', false, peer, metadata) end
  redis.call('SADD', base .. 'members:' .. process, place .. '\\n' .. peer)
  tell(key, process, 'enter', redis.call('HINCRBY', key, ' ' .. peer, 1) == 1, peer, metadata)
end

for index = 4, #ARGV, 4 do
  local op, place, peer, metadata = ARGV[index], ARGV[index + 1], ARGV[index + 2], ARGV[index + 3]
  if op == 'leave' then leave(process, place, peer) else enter(place, peer, metadata, op == 'stay') end
end
keepRevision()
return wasOver and '1' or '0'
`

/** Returns '1' when the process was not believed to live, then those that are not. */
export const placesBeat = `
local wasOver = isOver(process)
renew()
local dead = redis.call('ZRANGEBYSCORE', base .. 'processes', '-inf', now, 'LIMIT', 0, 100)
return { wasOver and '1' or '0', unpack(dead) }
`

/**
 * Arguments: a process, '1' when it closes, how many of its peers leave at most. Returns '1' when there may be more. A
 * process that came back in the meantime is left alone.
 */
export const placesSweep = `
if ARGV[5] ~= '1' and not isOver(ARGV[4]) then return '0' end
local members = redis.call('SPOP', base .. 'members:' .. ARGV[4], ARGV[6])
for _, member in ipairs(members) do
  local stop = string.find(member, '\\n', 1, true)
  leave(ARGV[4], string.sub(member, 1, stop - 1), string.sub(member, stop + 1))
end
keepRevision()
if #members == tonumber(ARGV[6]) then return '1' end
redis.call('ZREM', base .. 'processes', ARGV[4])
return '0'
`

/** Arguments: a place. Returns the newest revision, then fields and values of the place. */
export const placesRoster = `
return { string.format('%.0f', newestRevision()), redis.call('HGETALL', base .. 'place:' .. ARGV[4]) }
`
