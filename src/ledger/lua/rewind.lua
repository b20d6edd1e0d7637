-- Moves the cursor back over messages that could not be added, if it is still where the failed intake left it.
-- KEYS  epoch, cursor
-- ARGV  my_epoch
--       moved: the cursor as it was moved
--       before: the cursor before that, '' for none
-- Gives 'OK' | {'STALE', epoch}
local epoch_key, cursor_key = unpack(KEYS)
local my_epoch, moved, before = unpack(ARGV)
local epoch = redis.call('GET', epoch_key)
if epoch ~= my_epoch then
  return {'STALE', epoch or ''}
end
if redis.call('GET', cursor_key) == moved then
  if before == '' then
    redis.call('DEL', cursor_key)
  else
    redis.call('SET', cursor_key, before)
  end
end
return 'OK'
