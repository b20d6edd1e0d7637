-- Publishes a marker, unless a newer epoch has begun: so leaders' markers rise along the stream.
-- KEYS  epoch      ARGV  my epoch, control channel, notice      Gives 'OK' | {'STALE', epoch}
local epoch = redis.call('GET', KEYS[1])
if epoch ~= ARGV[1] then
  return {'STALE', epoch or ''}
end
redis.call('PUBLISH', ARGV[2], ARGV[3])
return 'OK'
