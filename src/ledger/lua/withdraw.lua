-- Removes members that were added without the cursor being moved over them. None of them was delivered, and their ids
-- are not used again, so a call that arrives late finds none.
-- KEYS  epoch, pending
-- ARGV  my_epoch, first, last (the first and the last id)
-- Gives 'OK' | {'STALE', epoch}
local epoch_key, pending_key = unpack(KEYS)
local my_epoch, first, last = unpack(ARGV)
local epoch = redis.call('GET', epoch_key)
if epoch ~= my_epoch then
  return {'STALE', epoch or ''}
end
redis.call('ZREMRANGEBYSCORE', pending_key, first, last)
local _, lowest = scores_with(first)
redis.call('ZREMRANGEBYSCORE', pending_key, lowest, (scores_with(last)))
return 'OK'
