-- Returns the value of an entry or false. ARGV: kind, key.
-- include kv-prelude

local value = read(ARGV[4], ARGV[5])
return value or false
