-- Detects lost writes and standstills. ARGV: a nonce or ''. The nonce is published as a message and added to a stream, so
-- that the caller can check that both connections deliver.
-- include agent-prelude

local marked = epoch == ARGV[1] and knownLast ~= '' and redis.call('XRANGE', changes, ARGV[2] .. '-0', ARGV[2] .. '-0')[1]
if marked and cjson.decode(marked[2][2]).mark ~= knownLast then beginEpoch() end
compensateStandstill()
if ARGV[13] ~= '' then
  redis.call('PUBLISH', base .. 'messages', cjson.encode({ type = 'probe', nonce = ARGV[13] }))
  redis.call('XADD', base .. 'probes', 'MAXLEN', '~', 100, '*', 'nonce', ARGV[13])
end
return reply('ok')
