-- Puts messages back whose results Redis refused after they were removed. Meanwhile a leader may have taken them for
-- done, or a new one may have begun without them: they may be delivered to another consumer.
--
-- Done once for each nonce: a call that arrives late, after another has put the messages back and their results were
-- recorded, would make them pending again. KEYS  pending, recall, done (the nonce's key) ARGV  remember_ms: how long
-- the nonce is remembered
--       highest: the highest id
--       then for each message, in order: score, member
-- Gives 'OK'
local pending_key, recall_key, done_key = unpack(KEYS)
local remember_ms, highest = unpack(ARGV, 1, 2)
local FIRST = 3
try_removal(pending_key)
if redis.call('EXISTS', done_key) == 1 then
  return 'OK'
end
redis.call('ZADD', pending_key, 'XX', 'GT', '-inf', '')
local recall = raised(recall_key, tonumber(highest))
redis.call('SET', done_key, '', 'PX', remember_ms)
if recall then
  redis.call('SET', recall_key, recall)
end
redis.call('ZADD', pending_key, unpack(ARGV, FIRST))
return 'OK'
