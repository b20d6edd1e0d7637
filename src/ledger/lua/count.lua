-- Counts deliveries that went out again after a lost link.
-- KEYS  epoch, pending, attempts
-- ARGV  my epoch, then for each message: id, number of the delivery
-- Gives 'OK' | {'STALE', epoch}
local epoch = redis.call('GET', KEYS[1])
if epoch ~= ARGV[1] then
  return {'STALE', epoch or ''}
end
for i = 2, #ARGV, 2 do
  -- The count of a message that is done would stay for ever.
  if redis.call('ZCOUNT', KEYS[2], ARGV[i], ARGV[i]) > 0 then
    -- Under maxmemory a script whose first write needs no memory may go on.
    redis.call('HDEL', KEYS[3], ARGV[i])
    redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
  end
end
return 'OK'
