-- Appends entries. ARGV[6]: how long a message key is remembered (ms). Then for each entry: log, message key or '', text.
-- Returns for each its epoch and offset, followed by ' 1' when it was stored before.
-- include log-prelude

local logs, results = {}, {}

local function countBytes (log)
  local kept, oldest = 0, nil
  for _, entry in ipairs(redis.call('XREVRANGE', log.entries, '+', '-')) do
    local size = #entry[2][4]
    -- Trims to three quarters, because counting all entries is too expensive to do for each one.
    if oldest and kept + size > mostBytes * 0.75 then
      redis.call('XTRIM', log.entries, 'MINID', oldest)
      break
    end
    kept, oldest = kept + size, entry[1]
  end
  return kept
end

local function store (log, text)
  log.offset, log.bytes = log.offset + 1, log.bytes + #text
  redis.call('XADD', log.entries, 'MAXLEN', mostEntries, log.offset .. '-0', 'at', now, 'entry', text)
  redis.call('PUBLISH', log.head, log.epoch .. ' ' .. log.offset .. ' ' .. now .. '\n' .. text)
end

for index = 7, #ARGV, 3 do
  local name, key = ARGV[index], ARGV[index + 1]
  local known = key ~= '' and redis.call('GET', base .. 'sent:' .. key)
  if known then
    results[#results + 1] = known .. ' 1'
  else
    local log = logs[name] or openLog(name)
    logs[name] = log
    store(log, ARGV[index + 2])
    local position = log.epoch .. ' ' .. log.offset
    if key ~= '' then redis.call('SET', base .. 'sent:' .. key, position, 'PX', ARGV[6]) end
    results[#results + 1] = position
  end
end

for _, log in pairs(logs) do
  dropOld(log)
  if log.bytes > mostBytes then log.bytes = countBytes(log) end
  redis.call('HSET', log.head, 'offset', log.offset, 'bytes', log.bytes)
  redis.call('PEXPIRE', log.head, age)
  redis.call('PEXPIRE', log.entries, age)
end
return results
