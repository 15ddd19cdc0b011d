-- Removes an entry. ARGV: kind, key, '1' to publish the change. Returns whether it was published, and the value or false.
-- include kv-prelude

local value = read(ARGV[4], ARGV[5])
drop(ARGV[4], { ARGV[5] })
local publishes = value and ARGV[6] == '1'
if publishes then publish(ARGV[4], ARGV[5], nil, now) end
return { publishes and 1 or 0, value or false }
