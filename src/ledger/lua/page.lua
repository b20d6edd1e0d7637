-- Reads pending messages in order of intake.
-- KEYS  epoch, pending, attempts
-- ARGV  my_epoch
--       after, up_to: the range of ids, without the first and with the last
--       most_messages, most_bytes: at least one member is given if there is one; with most_bytes 0 none is given, only
--       where the first message is
-- Gives {'OK', id read up to or false if the range is empty, numbers of the next deliveries or false, member, …}
--     | {'STALE', epoch}
--       If a delivery isn't due yet, behind its number is a space and in how many milliseconds it is. A bundle is given
--       whole, also if only some of its messages are in the range; each of them is in its first delivery
local epoch_key, pending_key, attempts_key = unpack(KEYS)
local my_epoch, after, up_to, most_messages, most_bytes = unpack(ARGV)
local epoch = redis.call('GET', epoch_key)
if epoch ~= my_epoch then
  return {'STALE', epoch or ''}
end
local most, bytes = tonumber(most_messages), tonumber(most_bytes)
local out, members, taken, step = {'OK', false, false}, 0, 0, 8
local bundle, first, last = next_bundle(pending_key, after, up_to)
if bytes == 0 then
  out[2] = redis.call('ZRANGEBYSCORE', pending_key, '(' .. after, up_to, 'WITHSCORES', 'LIMIT', 0, 1)[2] or false
  if bundle and not (out[2] and tonumber(out[2]) < first) then
    out[2] = string.format('%.0f', math.max(first, tonumber(after) + 1))
  end
end
-- Members of single messages up to the next bundle, then that bundle, and so on. In growing steps, because sizes are
-- not known in advance and one step must stay small if payloads are large.
while taken < most and bytes > 0 do
  local count = math.min(step, most - taken)
  local before_bundle = bundle and string.format('(%.0f', first) or up_to
  local found = redis.call('ZRANGEBYSCORE', pending_key, '(' .. after, before_bundle, 'LIMIT', 0, count)
  local before = bytes
  if #found > 0 then
    local read = 0
    while read < #found and bytes > 0 do
      read = read + 1
      out[members + read + 3], bytes = found[read], bytes - #found[read]
    end
    members, taken = members + read, taken + read
    -- Read once for each step, because a score as text costs Redis more than the rest of a message.
    after = redis.call('ZRANGEBYSCORE', pending_key, '(' .. after, up_to, 'WITHSCORES', 'LIMIT', read - 1, 1)[2]
  elseif bundle then
    -- One that no dispatcher wrote is passed over.
    if string.sub(bundle, 1, 17) == string.format('%016x*', first) then
      members, taken = members + 1, taken + BUNDLE_MESSAGES
      out[members + 3] = bundle
    end
    bytes = bytes - #bundle
    after = string.format('%.0f', math.ceil(last))
    bundle, first, last = next_bundle(pending_key, after, up_to)
  else
    break
  end
  out[2] = after
  if (before - bytes) * 4 < bytes then
    step = math.min(step * 2, 256)
  end
end
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
