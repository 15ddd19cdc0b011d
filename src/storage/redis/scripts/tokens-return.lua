-- Returns one token to each bucket.
-- include token-buckets

for index = 6, #ARGV do keep(ARGV[index], fullAtOf(ARGV[index]) - interval) end
return 1
