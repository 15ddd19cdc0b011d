-- Takes one token from each bucket, or none from any. Returns false, or the milliseconds to wait as text.
-- include token-buckets

local fullAt = now
for index = 6, #ARGV do fullAt = math.max(fullAt, fullAtOf(ARGV[index])) end
local wait = fullAt - (now + window - interval)
if wait > 1e-6 then return string.format('%.6f', wait) end
for index = 6, #ARGV do keep(ARGV[index], fullAtOf(ARGV[index]) + interval) end
return false
