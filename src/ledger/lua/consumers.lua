-- Rewrites the list of connected consumers.
-- KEYS  epoch, consumers
-- ARGV  my_epoch, then the consumers' ids
-- Gives 'OK' | {'STALE', epoch}
local epoch_key, consumers_key = unpack(KEYS)
local my_epoch = unpack(ARGV, 1, 1)
local epoch = redis.call('GET', epoch_key)
if epoch ~= my_epoch then
  return {'STALE', epoch or ''}
end
local FIRST = 2
local count = #ARGV - FIRST + 1
if count == 0 then
  redis.call('DEL', consumers_key)
  return 'OK'
end
-- This tries the cut below, and lets the script continue when the memory is full.
redis.call('LTRIM', consumers_key, 0, -1)
redis.call('RPUSH', consumers_key, unpack(ARGV, FIRST))
redis.call('LTRIM', consumers_key, -count, -1)
return 'OK'
