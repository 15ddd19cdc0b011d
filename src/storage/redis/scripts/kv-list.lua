-- Lists entries. ARGV: kinds. Returns a list for each kind, with key, value and expiry of each entry.
-- include kv-prelude

local lists = {}
for index = 4, #ARGV do
  local values, ends = keysOf(ARGV[index])
  local list = redis.call('ZRANGEBYSCORE', ends, string.format('(%.3f', now), '+inf', 'WITHSCORES')
  local entries = {}
  for position = 1, #list, 2 do
    local value = redis.call('HGET', values, list[position])
    if value then entries[#entries + 1] = { list[position], value, list[position + 1] } end
  end
  lists[#lists + 1] = entries
end
return lists
