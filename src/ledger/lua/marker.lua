-- Publishes a marker, unless a newer epoch has begun. So leaders' markers rise along the stream.
-- KEYS  epoch
-- ARGV  my_epoch, control_channel, notice
--       publish: the command, SPUBLISH for a group that listens to sharded channels, else PUBLISH
-- Gives 'OK' | {'STALE', epoch}
local epoch_key = unpack(KEYS)
local my_epoch, control_channel, notice, publish = unpack(ARGV)
local epoch = redis.call('GET', epoch_key)
if epoch ~= my_epoch then
  return {'STALE', epoch or ''}
end
if publish == 'SPUBLISH' then
  redis.call('SPUBLISH', control_channel, notice)
else
  redis.call('PUBLISH', control_channel, notice)
end
return 'OK'
