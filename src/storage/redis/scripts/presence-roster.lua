-- Returns the newest revision and the fields and values of a set. ARGV: set.
-- include presence-prelude

return { string.format('%.0f', newestRevision()), redis.call('HGETALL', base .. 'place:' .. ARGV[4]) }
