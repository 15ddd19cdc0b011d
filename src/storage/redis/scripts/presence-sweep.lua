-- Removes the peers of a process that has ended. ARGV: process, '1' when it closes itself, maximum number of peers. Returns
-- '1' when there may be more. A process that has resumed in the meantime is left unchanged.
-- include presence-prelude

if ARGV[5] ~= '1' and not isExpired(ARGV[4]) then return '0' end
local members = redis.call('SPOP', base .. 'members:' .. ARGV[4], ARGV[6])
for _, member in ipairs(members) do
  local stop = string.find(member, '\n', 1, true)
  leave(ARGV[4], string.sub(member, 1, stop - 1), string.sub(member, stop + 1))
end
keepRevision()
if #members == tonumber(ARGV[6]) then return '1' end
redis.call('ZREM', base .. 'processes', ARGV[4])
return '0'
