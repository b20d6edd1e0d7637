-- Reads pending messages in order of intake, for people: without a lease, and by default without their payloads.
-- KEYS  pending, attempts
-- ARGV  after, up_to: the range of ids, without the first and with the last
--       most_messages, most_bytes: at least one message is read if there is one, and some more than that to the end of
--       a bundle
--       whole: '1' to give the payloads, too
-- Gives {id read up to or false if the range is empty, then for each message: its member, or the beginning of it that
--        ends before the payload; the bytes of the payload; what attempts has for it, or false}
--       The messages of a bundle are given as members of their own
local pending_key, attempts_key = unpack(KEYS)
local after, up_to, most_messages, most_bytes, whole = unpack(ARGV)
local most, bytes = tonumber(most_messages), tonumber(most_bytes)
local out, ids = {false}, {}

local function give(member)
  local length, channel = string.match(string.sub(member, 17, 24), '^@(%d+):()')
  local head = channel and 15 + channel + tonumber(length) or 17
  out[#out + 1] = whole == '1' and member or string.sub(member, 1, head)
  out[#out + 1] = math.max(#member - head, 0)
  out[#out + 1] = false
  -- A foreign member has no id, and no count.
  ids[#ids + 1] = string.format('%.0f', tonumber(string.sub(member, 1, 16), 16) or 0)
end

out[1] = walk(pending_key, after, up_to, most, bytes, function(member, first, last)
  local messages = first and messages_in(member, last - BELOW)
  if not messages then
    return give(member)
  end
  for id = math.max(first, tonumber(after) + 1), math.min(last, tonumber(up_to)) do
    give(messages[id - first + 1])
  end
end, function(member)
  if #ids < most then
    give(member)
  end
end) or false
-- Only redelivered messages have a count, so usually there is none.
if #ids > 0 and redis.call('EXISTS', attempts_key) == 1 then
  for i, count in ipairs(redis.call('HMGET', attempts_key, unpack(ids))) do
    out[3 * i + 1] = count
  end
end
return out
