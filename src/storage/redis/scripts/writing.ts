/** Arguments: id, content, kind of the claim, digest, '1' when exclusive, most agents of the key, most agents. */
export const register = `
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
`

/** Arguments: id, content, the revision that it was made from. A number of another epoch means nothing here. */
export const update = `
local id, content = ARGV[13], ARGV[14]
local was = find(id)
if not was then return reply('not-found') end
if was.revision ~= tonumber(ARGV[15]) or epoch ~= ARGV[1] then return reply('conflict') end
local former = redis.call('HGET', agents, id)
local changed = former ~= content
if changed then redis.call('HSET', agents, id, content) end
change('updated', id, 'patched', was, {}, nil, changed and content or nil, changed and former or nil)
return reply('ok')
`

/** Arguments: id, incarnation or '', reason, digest of the key that must own it or ''. */
export const remove = `
local id = ARGV[13]
local was = find(id)
if not was then return reply('not-found') end
if isStale(was, ARGV[14]) then return reply('stale-incarnation') end
if ARGV[16] ~= '' and was.ownerKey ~= ARGV[16] then return reply('not-owner') end
remove(id, was, ARGV[15])
return reply('ok')
`

/** Arguments: id, incarnation or '', the wanted state, reason. Returns the number of the record's revision. */
export const setState = `
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
`
