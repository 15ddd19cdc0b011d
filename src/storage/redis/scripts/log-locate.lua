-- Returns epoch and newest offset of logs, and keeps these logs from expiring. ARGV of each: log, epoch and offset that the
-- caller knows. A log that knows less than the caller has lost entries: it begins a new epoch.
-- include log-prelude

local results = {}
for index = 6, #ARGV, 3 do
  local log = openLog(ARGV[index])
  if log.epoch == ARGV[index + 1] and log.offset < tonumber(ARGV[index + 2]) then
    log.epoch = candidate
    redis.call('HSET', log.head, 'epoch', candidate, 'start', log.offset)
  end
  redis.call('PEXPIRE', log.head, age)
  results[#results + 1] = log.epoch .. ' ' .. log.offset
end
return results
