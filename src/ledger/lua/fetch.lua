-- Reads those of the given messages that are still pending.
-- KEYS  epoch, pending, attempts
-- ARGV  my_epoch, most_bytes, then the ids
-- Gives {'OK', number of ids looked at, member, what `attempts` has for it or false, …} | {'STALE', epoch}
local epoch_key, pending_key, attempts_key = unpack(KEYS)
local my_epoch, most_bytes = unpack(ARGV, 1, 2)
local epoch = redis.call('GET', epoch_key)
if epoch ~= my_epoch then
  return {'STALE', epoch or ''}
end
local FIRST = 3
local bytes = tonumber(most_bytes)
local out = {'OK', 0}
for i = FIRST, #ARGV do
  if bytes <= 0 then
    break
  end
  local id = ARGV[i]
  local member = ours(redis.call('ZRANGEBYSCORE', pending_key, id, id, 'LIMIT', 0, 16), id)
  if member then
    out[#out + 1] = member
    out[#out + 1] = redis.call('HGET', attempts_key, id)
    bytes = bytes - #member
  end
  out[2] = i - FIRST + 1
end
return out
