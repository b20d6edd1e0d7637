-- Reads pending messages in order of intake, for people: without a lease, and by default without their payloads.
-- KEYS  pending, attempts
-- ARGV  after, up_to: the range of ids, without the first and with the last
--       most_messages, most_bytes: at least one message is read if there is one
--       whole: '1' to give the payloads, too
-- Gives {score read up to or false if the range is empty, then for each message: its member, or the beginning of it
--        that ends before the payload; the bytes of the payload; what attempts has for it, or false}
local pending_key, attempts_key = unpack(KEYS)
local after, up_to, most_messages, most_bytes, whole = unpack(ARGV)
local most, bytes = tonumber(most_messages), tonumber(most_bytes)
-- In growing steps, because sizes are not known in advance: Redis copies each member that a step reads.
local out, ids, step = {false}, {}, 1
while #ids < most and bytes > 0 do
  local count = math.min(step, most - #ids)
  local members = redis.call('ZRANGEBYSCORE', pending_key, '(' .. after, up_to, 'LIMIT', 0, count)
  if #members == 0 then
    break
  end
  local before, taken = bytes, 0
  for _, member in ipairs(members) do
    local length, channel = string.match(string.sub(member, 17, 24), '^@(%d+):()')
    local head = channel and 15 + channel + tonumber(length) or 17
    out[#out + 1] = whole == '1' and member or string.sub(member, 1, head)
    out[#out + 1] = math.max(#member - head, 0)
    out[#out + 1] = false
    -- A foreign member has no id, and no count.
    ids[#ids + 1] = string.format('%.0f', tonumber(string.sub(member, 1, 16), 16) or 0)
    taken, bytes = taken + 1, bytes - #member
    if bytes <= 0 then
      break
    end
  end
  after = redis.call('ZRANGEBYSCORE', pending_key, '(' .. after, up_to, 'WITHSCORES', 'LIMIT', taken - 1, 1)[2]
  out[1] = after
  if (before - bytes) * 4 < bytes then
    step = math.min(step * 2, 256)
  end
end
-- Only redelivered messages have a count, so usually there is none.
if #ids > 0 and redis.call('EXISTS', attempts_key) == 1 then
  for i, count in ipairs(redis.call('HMGET', attempts_key, unpack(ids))) do
    out[3 * i + 1] = count
  end
end
return out
