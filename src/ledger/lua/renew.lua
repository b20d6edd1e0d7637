-- Renews the lease if it is still the caller's.
-- KEYS  leader
-- ARGV  lease, ttl_ms
-- Gives 1 if it was, 0 if not
local leader_key = unpack(KEYS)
local lease, ttl_ms = unpack(ARGV)
if redis.call('GET', leader_key) == lease then
  return redis.call('PEXPIRE', leader_key, ttl_ms)
end
return 0
