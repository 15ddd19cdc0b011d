-- Reads a part of all agents. ARGV: cursor. The status is the next cursor; the result has the ids, heads, contents, times
-- of the last heartbeat, and reports, each as a list.
-- include agent-prelude

local scanned = redis.call('HSCAN', heads, ARGV[13], 'COUNT', 1000)
local ids, columns = {}, { {}, {}, {}, {}, {} }
for index = 1, #scanned[2], 2 do
  ids[#ids + 1] = scanned[2][index]
  columns[2][#ids] = scanned[2][index + 1]
end
columns[1] = ids
for position, key in ipairs({ agents, seen, reports }) do
  for first = 1, #ids, 1000 do
    local values = redis.call('HMGET', key, unpack(ids, first, math.min(first + 999, #ids)))
    for index, value in ipairs(values) do columns[position + 2][first + index - 1] = value end
  end
end
return reply(scanned[1], columns)
