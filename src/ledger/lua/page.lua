-- Reads pending messages in order of intake.
-- KEYS  epoch, pending, attempts
-- ARGV  my epoch, after id, up to id, most messages, most bytes
-- Gives {'OK', score read up to or false if the range is empty, numbers of the next deliveries or false, member, …}
--     | {'STALE', epoch}. At least one message is given if there is one, but none if no bytes are asked for: then only
--     where the first one is.
local epoch = redis.call('GET', KEYS[1])
if epoch ~= ARGV[1] then
  return {'STALE', epoch or ''}
end
local after, most, bytes = ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5])
local out, taken, step = {'OK', false, false}, 0, 8
if bytes == 0 then
  out[2] = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. after, ARGV[3], 'WITHSCORES', 'LIMIT', 0, 1)[2] or false
end
-- In growing steps: the sizes are not known before, and one step of large payloads must stay small.
while taken < most and bytes > 0 do
  local members = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. after, ARGV[3], 'LIMIT', 0, math.min(step, most - taken))
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
  -- Asked for once a step: a score as text costs Redis more than all else of a message.
  after = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. after, ARGV[3], 'WITHSCORES', 'LIMIT', taken - first - 1, 1)[2]
  out[2] = after
  if (before - bytes) * 4 < bytes then
    step = math.min(step * 2, 256)
  end
end
-- Only redelivered messages have a count, so mostly there is none.
if taken > 0 and redis.call('EXISTS', KEYS[3]) == 1 then
  local ids = {}
  for i = 1, taken do
    -- A foreign member has no id, and no count.
    ids[i] = string.format('%.0f', tonumber(string.sub(out[i + 3], 1, 16), 16) or 0)
  end
  out[3] = redis.call('HMGET', KEYS[3], unpack(ids))
end
return out
