-- Releases the lease if it is still the caller's, and notifies the standbys. The list of consumers is deleted as well:
-- no dispatcher is connected to them. KEYS  leader, consumers ARGV  lease, control_channel, notice Gives 1 if it was, 0
-- if not
local leader_key, consumers_key = unpack(KEYS)
local lease, control_channel, notice = unpack(ARGV)
if redis.call('GET', leader_key) == lease then
  redis.call('DEL', leader_key, consumers_key)
  -- The notice only lets the standbys react sooner: without it they find out by themselves.
  redis.pcall('PUBLISH', control_channel, notice)
  return 1
end
return 0
