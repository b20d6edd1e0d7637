-- Gives the lease back if it is still the caller's, and tells the standbys.
-- The list of consumers goes, too: nobody is connected to them.
-- KEYS  leader, consumers      ARGV  lease, control channel, notice      Gives 1 if it was, 0 if not.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1], KEYS[2])
  -- The notice only saves the standbys a look: refused it changes nothing.
  redis.pcall('PUBLISH', ARGV[2], ARGV[3])
  return 1
end
return 0
