-- Counts deliveries that were repeated after a lost link.
-- KEYS  epoch, pending, attempts
-- ARGV  my_epoch, then for each message: id, number of the delivery
-- Gives 'OK' | {'STALE', epoch}
local epoch_key, pending_key, attempts_key = unpack(KEYS)
local my_epoch = unpack(ARGV, 1, 1)
local epoch = redis.call('GET', epoch_key)
if epoch ~= my_epoch then
  return {'STALE', epoch or ''}
end
local FIRST = 2
local counts = {}
-- Lets the script continue when the memory is full.
try_removal(pending_key)
for i = FIRST, #ARGV, 2 do
  local id, delivery = ARGV[i], ARGV[i + 1]
  -- Only pending messages are counted, because the count of a done message would stay for ever. A call that arrives
  -- late must not lower a count. The delivery is under way, so its time is dropped.
  local counted, _, history = attempts_in(redis.call('HGET', attempts_key, id))
  if counted < tonumber(delivery) and is_pending(pending_key, id) then
    counts[#counts + 1] = id
    counts[#counts + 1] = delivery .. history
  end
end
if #counts > 0 then
  redis.call('HSET', attempts_key, unpack(counts))
end
return 'OK'
