-- Renews leases. ARGV: id and incarnation or '' of each heartbeat. The result has, for each, the revision of the record,
-- -1 for an unknown agent or -2 for a stale incarnation.
-- include agent-prelude

local results = {}
for index = 13, #ARGV, 2 do results[#results + 1] = heartbeat(ARGV[index], ARGV[index + 1]) end
return reply('ok', results)
