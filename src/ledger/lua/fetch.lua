-- Reads those of the given messages that are still pending, and for which the leader has waited by its own clock.
-- KEYS  epoch, pending, attempts
-- ARGV  my_epoch, most_bytes, then the ids
-- Gives {'OK', number of ids looked at, member, number of its next delivery or false, …} | {'STALE', epoch}
--       If a delivery isn't due yet, behind its number is a space and in how many milliseconds it is: it was delayed
--       anew meanwhile
local epoch_key, pending_key, attempts_key = unpack(KEYS)
local my_epoch, most_bytes = unpack(ARGV, 1, 2)
local epoch = redis.call('GET', epoch_key)
if epoch ~= my_epoch then
  return {'STALE', epoch or ''}
end
local FIRST = 3
local bytes = tonumber(most_bytes)
local out, now = {'OK', 0}, now_ms()
for i = FIRST, #ARGV do
  if bytes <= 0 then
    break
  end
  local id = ARGV[i]
  local member = ours(redis.call('ZRANGEBYSCORE', pending_key, id, id, 'LIMIT', 0, 16), id)
  -- It was taken out of its bundle when it was settled. If Redis has forgotten that, it is taken out again.
  if not member and is_in_bundle(pending_key, id) then
    try_removal(pending_key)
    member = is_pending(pending_key, id)
      and ours(redis.call('ZRANGEBYSCORE', pending_key, id, id, 'LIMIT', 0, 16), id)
  end
  if member then
    out[#out + 1] = member
    out[#out + 1] = to_deliver(redis.call('HGET', attempts_key, id), now, true)
    bytes = bytes - #member
  end
  out[2] = i - FIRST + 1
end
return out
