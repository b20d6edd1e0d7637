-- Removes members that were added without the cursor being moved over them. Nobody has been given them, and their ids are not
-- used again: a call that comes late finds none.
-- KEYS  epoch, pending      ARGV  my epoch, first id, last id      Gives 'OK' | {'STALE', epoch}
local epoch = redis.call('GET', KEYS[1])
if epoch ~= ARGV[1] then
  return {'STALE', epoch or ''}
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], ARGV[2], ARGV[3])
return 'OK'
