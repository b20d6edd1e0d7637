-- Reads chosen messages, those of them that are still pending.
-- KEYS  epoch, pending, attempts
-- ARGV  my epoch, most bytes, ids
-- Gives {'OK', ids looked at, member, number of its next delivery or false, …} | {'STALE', epoch}
local epoch = redis.call('GET', KEYS[1])
if epoch ~= ARGV[1] then
  return {'STALE', epoch or ''}
end
local bytes = tonumber(ARGV[2])
local out = {'OK', 0}
for i = 3, #ARGV do
  if bytes <= 0 then
    break
  end
  local member = ours(redis.call('ZRANGEBYSCORE', KEYS[2], ARGV[i], ARGV[i], 'LIMIT', 0, 16), ARGV[i])
  if member then
    out[#out + 1] = member
    out[#out + 1] = redis.call('HGET', KEYS[3], ARGV[i])
    bytes = bytes - #member
  end
  out[2] = i - 2
end
return out
