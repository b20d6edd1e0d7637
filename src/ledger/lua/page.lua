-- Reads pending messages in order of intake.
-- KEYS  epoch, pending, attempts
-- ARGV  my_epoch
--       after, up_to: the range of ids, without the first and with the last
--       most_messages, most_bytes: at least one message is given if there is one; with most_bytes 0 none is given, only
--       where the first one is
-- Gives {'OK', score read up to or false if the range is empty, numbers of the next deliveries or false, member, …}
--     | {'STALE', epoch}
--       If a delivery isn't due yet, behind its number is a space and in how many milliseconds it is
local epoch_key, pending_key, attempts_key = unpack(KEYS)
local my_epoch, after, up_to, most_messages, most_bytes = unpack(ARGV)
local epoch = redis.call('GET', epoch_key)
if epoch ~= my_epoch then
  return {'STALE', epoch or ''}
end
local most, bytes = tonumber(most_messages), tonumber(most_bytes)
local out, taken, step = {'OK', false, false}, 0, 8
if bytes == 0 then
  out[2] = redis.call('ZRANGEBYSCORE', pending_key, '(' .. after, up_to, 'WITHSCORES', 'LIMIT', 0, 1)[2] or false
end
-- In growing steps, because sizes are not known in advance and one step must stay small if payloads are large.
while taken < most and bytes > 0 do
  local count = math.min(step, most - taken)
  local members = redis.call('ZRANGEBYSCORE', pending_key, '(' .. after, up_to, 'LIMIT', 0, count)
  if #members == 0 then
    break
  end
  local before, first = bytes, taken
  for i = 1, #members do
    out[taken + 4] = members[i]
    taken, bytes = taken + 1, bytes - #members[i]
    if bytes <= 0 then
      break
    end
  end
  -- Read once for each step, because a score as text costs Redis more than the rest of a message.
  after = redis.call('ZRANGEBYSCORE', pending_key, '(' .. after, up_to, 'WITHSCORES', 'LIMIT', taken - first - 1, 1)[2]
  out[2] = after
  if (before - bytes) * 4 < bytes then
    step = math.min(step * 2, 256)
  end
end
-- Only redelivered messages have a count, so usually there is none.
if taken > 0 and redis.call('EXISTS', attempts_key) == 1 then
  local ids = {}
  for i = 1, taken do
    -- A foreign member has no id, and no count.
    ids[i] = string.format('%.0f', tonumber(string.sub(out[i + 3], 1, 16), 16) or 0)
  end
  local counts, now = redis.call('HMGET', attempts_key, unpack(ids)), now_ms()
  for i = 1, taken do
    counts[i] = to_deliver(counts[i], now, false)
  end
  out[3] = counts
end
return out
