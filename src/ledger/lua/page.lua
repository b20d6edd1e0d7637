-- Reads pending messages in order of intake.
-- KEYS  epoch, pending, attempts
-- ARGV  my epoch, after id, up to id, most messages, most bytes
-- Gives {'OK', score read up to or false if the range is empty, member, number of its next delivery or false, …}
--     | {'STALE', epoch}. At least one message is given if there is one.
local epoch = redis.call('GET', KEYS[1])
if epoch ~= ARGV[1] then
  return {'STALE', epoch or ''}
end
local after, most, bytes = ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5])
local counted = redis.call('EXISTS', KEYS[3]) == 1
local out, taken, step = {'OK', false}, 0, 8
-- In growing steps: the sizes are not known before, and one step of large payloads must stay small.
while taken < most and bytes > 0 do
  local members = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. after, ARGV[3], 'WITHSCORES',
    'LIMIT', 0, math.min(step, most - taken))
  if #members == 0 then
    break
  end
  local before = bytes
  for i = 1, #members, 2 do
    local member, id = members[i], members[i + 1]
    out[#out + 1] = member
    out[#out + 1] = counted and redis.call('HGET', KEYS[3], id) or false
    after, taken, bytes = id, taken + 1, bytes - #member
    out[2] = id
    if bytes <= 0 then
      break
    end
  end
  if (before - bytes) * 4 < bytes then
    step = math.min(step * 2, 256)
  end
end
return out
