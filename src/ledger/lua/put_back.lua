-- Puts messages back whose results Redis refused after they were removed. Meanwhile a leader may have taken them for done,
-- or a new one may have begun without them: they may go out to somebody else.
--
-- Done once for each nonce: a call that comes late, after another has put the messages back and their results were recorded,
-- would make them pending again.
-- KEYS  pending, recall, the nonce's key
-- ARGV  how long the nonce is remembered in ms, the highest id, then score and member for each message, in order
prove_removal(KEYS[1])
if redis.call('EXISTS', KEYS[3]) == 1 then
  return 'OK'
end
redis.call('ZADD', KEYS[1], 'XX', 'GT', '-inf', '')
local recall = raised(KEYS[2], tonumber(ARGV[2]))
redis.call('SET', KEYS[3], '', 'PX', ARGV[1])
if recall then
  redis.call('SET', KEYS[2], recall)
end
redis.call('ZADD', KEYS[1], unpack(ARGV, 3))
return 'OK'
