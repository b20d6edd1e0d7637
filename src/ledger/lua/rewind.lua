-- Moves the cursor back over messages that could not be added; if it is not where they left it, nothing is to be done.
-- KEYS  epoch, cursor
-- ARGV  my epoch, the cursor as it was moved, the cursor before that ('' for none)
-- Gives 'OK' | {'STALE', epoch}
local epoch = redis.call('GET', KEYS[1])
if epoch ~= ARGV[1] then
  return {'STALE', epoch or ''}
end
if redis.call('GET', KEYS[2]) == ARGV[2] then
  if ARGV[3] == '' then
    redis.call('DEL', KEYS[2])
  else
    redis.call('SET', KEYS[2], ARGV[3])
  end
end
return 'OK'
