/** Arguments: a nonce or ''. It goes the way of every message and of every change, to see that both are open. */
export const pulse = `
local marked = epoch == ARGV[1] and knownLast ~= '' and redis.call('XRANGE', changes, ARGV[2] .. '-0', ARGV[2] .. '-0')[1]
if marked and cjson.decode(marked[2][2]).mark ~= knownLast then begin() end
standUp()
if ARGV[13] ~= '' then
  redis.call('PUBLISH', base .. 'messages', cjson.encode({ type = 'probe', nonce = ARGV[13] }))
  redis.call('XADD', base .. 'probes', 'MAXLEN', '~', 100, '*', 'nonce', ARGV[13])
end
return reply('ok')
`

/** A part of all agents. Arguments: cursor. Returns the next cursor and, for each, id, head, content, last sign and report. */
export const page = `
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
`
