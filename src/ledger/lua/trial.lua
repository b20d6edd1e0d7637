-- Writes a group's keys for a trial of one consumer. Does nothing if a dispatcher leads the group, or has led it since
-- the trial last wrote the epoch: then what is there is not the trial's.
-- KEYS  leader, epoch, pending, processed, attempts, dead, recall
-- ARGV  expected: the value that the epoch must have, behind a '='; '' if there must be none; 'any'
--       epoch: what to write as the epoch; '' for none
--       clears: '1' to remove the other keys
--       then the score, the member and the number of the delivery of a message to be made pending, if any
-- Gives 'OK' | 'LED'
local leader_key, epoch_key, pending_key, processed_key, attempts_key, dead_key, recall_key = unpack(KEYS)
local expected, epoch, clears = unpack(ARGV, 1, 3)
local found = redis.call('GET', epoch_key)
if redis.call('EXISTS', leader_key) == 1 or expected ~= 'any' and expected ~= (found and '=' .. found or '') then
  return 'LED'
end
if clears == '1' then
  redis.call('DEL', pending_key, processed_key, attempts_key, dead_key, recall_key)
end
local score, member, delivery = unpack(ARGV, 4)
if score then
  redis.call('ZADD', pending_key, score, member)
  if tonumber(delivery) > 1 then
    redis.call('HSET', attempts_key, score, delivery)
  end
end
if epoch == '' then
  redis.call('DEL', epoch_key)
else
  redis.call('SET', epoch_key, epoch)
end
return 'OK'
