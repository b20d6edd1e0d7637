-- Releases the lease if it is still the caller's, and notifies the standbys. Also deletes the list of consumers, since
-- no dispatcher is connected to them.
-- KEYS  leader, consumers
-- ARGV  lease, control_channel, notice
-- Gives 1 if it was the caller's, 0 if not
local leader_key, consumers_key = unpack(KEYS)
local lease, control_channel, notice = unpack(ARGV)
if redis.call('GET', leader_key) == lease then
  redis.call('DEL', leader_key, consumers_key)
  -- The notice only lets the standbys react sooner. Without it they find out by polling.
  redis.pcall('PUBLISH', control_channel, notice)
  return 1
end
return 0
