-- Reads pending messages in order of intake.
-- KEYS  epoch, pending, attempts
-- ARGV  my_epoch
--       after, up_to: the range of ids, without the first and with the last
--       most_messages, most_bytes: at least one member is given if there is one; with most_bytes 0 none is given, only
--       where the first message is
--       apart: 0; or how many bundles were read just before, at most, by a plain command. Then the range ends with the
--       last of these, only the other members in it are given, and the id is where reading ended
-- Gives {'OK', id read up to or false if the range is empty, numbers of the next deliveries or false, member, …}
--     | {'STALE', epoch}
--       If a delivery isn't due yet, behind its number is a space and in how many milliseconds it is. A bundle is given
--       whole, also if only some of its messages are in the range; each of them is in its first delivery
local epoch_key, pending_key, attempts_key = unpack(KEYS)
local my_epoch, after, up_to, most_messages, most_bytes, apart = unpack(ARGV)
local epoch = redis.call('GET', epoch_key)
if epoch ~= my_epoch then
  return {'STALE', epoch or ''}
end
local most, bytes = tonumber(most_messages), tonumber(most_bytes)
if apart ~= '0' then
  local low, high = string.format('(%.0f', tonumber(after) - BELOW), select(2, scores_with(up_to))
  local last = redis.call('ZRANGEBYSCORE', pending_key, low, high, 'WITHSCORES', 'LIMIT', apart - 1, 1)[2]
  if last then
    up_to = string.format('%.0f', math.min(math.floor(tonumber(last) + BELOW), tonumber(up_to)))
  end
end
local out, members, size, begin = {'OK', false, false}, 0, 0, nil
local read_up_to = walk(pending_key, after, up_to, most, math.max(bytes, 1), function(member, first)
  if bytes > 0 then
    members, size = members + 1, size + #member
    out[members + 3] = member
  elseif first and not begin then
    begin = string.format('%.0f', math.max(first, tonumber(after) + 1))
  end
end, function() end, apart ~= '0')
if apart ~= '0' and members < most and size < bytes then
  read_up_to = up_to
end
out[2] = begin or read_up_to or false
-- Only redelivered messages have a count, so usually there is none.
if members > 0 and redis.call('EXISTS', attempts_key) == 1 then
  local ids = {}
  for i = 1, members do
    -- A foreign member has no id, and no count. Nor has a bundle a count.
    ids[i] = string.format('%.0f', tonumber(string.sub(out[i + 3], 1, 16), 16) or 0)
  end
  local counts, now = redis.call('HMGET', attempts_key, unpack(ids)), now_ms()
  for i = 1, members do
    counts[i] = to_deliver(counts[i], now, false)
  end
  out[3] = counts
end
return out
