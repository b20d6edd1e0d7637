-- Prolongs the lease if it is still the caller's.
-- KEYS  leader      ARGV  lease, TTL in ms      Gives 1 if it was, 0 if not.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
