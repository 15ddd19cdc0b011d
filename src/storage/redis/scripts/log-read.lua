-- Reads entries. ARGV: log; epoch and offset to read after, or '' and 0 for the newest entries; maximum number; '1' to read
-- only the entries of the current epoch when the given one is another. Returns epoch, newest offset, offset of the oldest
-- kept entry (or of the next one), entries.
-- include log-prelude

local log = openLog(ARGV[6])
local first = dropOld(log)
local oldest = first and tonumber(string.match(first[1], '^%d+')) or log.offset + 1
local after, most, entries = tonumber(ARGV[8]), tonumber(ARGV[9]), {}
if ARGV[7] ~= log.epoch or after > log.offset then after = ARGV[10] == '1' and log.start or 0 end
if most > 0 and ARGV[7] == '' then
  entries = redis.call('XREVRANGE', log.entries, '+', '-', 'COUNT', most)
elseif most > 0 then
  entries = redis.call('XRANGE', log.entries, '(' .. after .. '-0', '+', 'COUNT', most)
end
return { log.epoch, log.offset, oldest, entries }
