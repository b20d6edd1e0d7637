-- Puts back messages that were removed and whose results Redis refused. Meanwhile a leader may have taken them for
-- done, or a new leader may have begun without them, so they may be delivered to another consumer.
--
-- Done once for each nonce. A copy of the call may arrive late, after the messages were put back and their results
-- recorded, and would otherwise make them pending again.
-- KEYS  pending, recall, done (the nonce's key)
-- ARGV  remember_ms: how long the nonce is remembered
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
-- If Redis was restarted without the removal, a message may be pending in its bundle, which is taken apart.
for i = FIRST, #ARGV, 2 do
  is_pending(pending_key, ARGV[i])
end
local recall = raised(recall_key, tonumber(highest))
redis.call('SET', done_key, '', 'PX', remember_ms)
if recall then
  redis.call('SET', recall_key, recall)
end
redis.call('ZADD', pending_key, unpack(ARGV, FIRST))
return 'OK'
