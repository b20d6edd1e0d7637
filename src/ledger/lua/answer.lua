-- Writes the answer to a question of an operator's tool, unless a newer epoch has begun.
-- KEYS  epoch, answer
-- ARGV  my_epoch, ttl_ms, text
-- Gives 'OK' | {'STALE', epoch}
local epoch_key, answer_key = unpack(KEYS)
local my_epoch, ttl_ms, text = unpack(ARGV)
local epoch = redis.call('GET', epoch_key)
if epoch ~= my_epoch then
  return {'STALE', epoch or ''}
end
redis.call('SET', answer_key, text, 'PX', ttl_ms)
return 'OK'
