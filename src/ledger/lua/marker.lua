-- Publishes a marker, unless a newer epoch has begun. So leaders' markers rise along the stream.
-- KEYS  epoch
-- ARGV  my_epoch, control_channel, notice
-- Gives 'OK' | {'STALE', epoch}
local epoch_key = unpack(KEYS)
local my_epoch, control_channel, notice = unpack(ARGV)
local epoch = redis.call('GET', epoch_key)
if epoch ~= my_epoch then
  return {'STALE', epoch or ''}
end
redis.call('PUBLISH', control_channel, notice)
return 'OK'
