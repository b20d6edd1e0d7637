-- Puts messages back whose results Redis refused after they were removed. Meanwhile a leader may have taken them for done,
-- or a new one may have begun without them: they may go out to somebody else.
-- KEYS  pending, recall
-- ARGV  the highest id, then score and member for each message, in order
redis.call('ZADD', KEYS[1], unpack(ARGV, 2))
local term, before = string.match(redis.call('GET', KEYS[2]) or '', '^(%d+ %w+) (%d+)$')
if term then
  redis.call('SET', KEYS[2], string.format('%s %.0f', term, math.max(tonumber(before), tonumber(ARGV[1]))))
end
return 'OK'
