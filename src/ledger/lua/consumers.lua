-- Rewrites the list of connected consumers.
-- KEYS  epoch, consumers      ARGV  my epoch, consumer ids      Gives 'OK' | {'STALE', epoch}
local epoch = redis.call('GET', KEYS[1])
if epoch ~= ARGV[1] then
  return {'STALE', epoch or ''}
end
redis.call('DEL', KEYS[2])
if #ARGV > 1 then
  redis.call('RPUSH', KEYS[2], unpack(ARGV, 2))
end
return 'OK'
