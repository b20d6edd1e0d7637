-- Counts deliveries that went out again after a lost link.
-- KEYS  epoch, pending, attempts
-- ARGV  my epoch, then for each message: id, number of the delivery
-- Gives 'OK' | {'STALE', epoch}
local epoch = redis.call('GET', KEYS[1])
if epoch ~= ARGV[1] then
  return {'STALE', epoch or ''}
end
local counts = {}
for i = 2, #ARGV, 2 do
  -- The count of a message that is done would stay for ever. A call that comes late must not lower one.
  if redis.call('ZCOUNT', KEYS[2], ARGV[i], ARGV[i]) > 0
    and (tonumber(redis.call('HGET', KEYS[3], ARGV[i])) or 0) < tonumber(ARGV[i + 1]) then
    counts[#counts + 1] = ARGV[i]
    counts[#counts + 1] = ARGV[i + 1]
  end
end
if #counts > 0 then
  -- Lets a full Redis go on.
  redis.call('HDEL', KEYS[3], '')
  redis.call('HSET', KEYS[3], unpack(counts))
end
return 'OK'
