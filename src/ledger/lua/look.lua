-- Reads pending messages in order of intake, for people: without a lease, and by default without their payloads.
-- KEYS  pending, attempts
-- ARGV  after, up_to: the range of ids, without the first and with the last
--       most_messages, most_bytes: at least one message is read if there is one
--       whole: '1' to give the payloads, too
-- Gives {id read up to or false if the range is empty, how many members of strangers were passed among the bundles,
--        then for each message: its member, or the beginning of it that ends before the payload; the bytes of the
--        payload; what attempts has for it, or false}
--       The messages of a bundle are given as members of their own
local pending_key, attempts_key = unpack(KEYS)
local after, up_to, most_messages, most_bytes, whole = unpack(ARGV)
local most, bytes = tonumber(most_messages), tonumber(most_bytes)
local out, ids = {false, 0}, {}

local function give(member)
  local length, channel = string.match(string.sub(member, 17, 24), '^@(%d+):()')
  local head = channel and 15 + channel + tonumber(length) or 17
  out[#out + 1] = whole == '1' and member or string.sub(member, 1, head)
  out[#out + 1] = math.max(#member - head, 0)
  out[#out + 1] = false
  -- A foreign member has no id, and no count.
  ids[#ids + 1] = string.format('%.0f', tonumber(string.sub(member, 1, 16), 16) or 0)
end

-- Those that strangers have put among the bundles, by the ids that they would have.
local strangers, cut = {}, nil
local read_up_to = walk(pending_key, after, up_to, most, bytes, function(member, first, last)
  local messages = first and messages_in(member, last - BELOW)
  if not messages then
    return give(member)
  end
  for id = math.max(first, tonumber(after) + 1), math.min(last, tonumber(up_to)) do
    if #ids == most then
      cut = string.format('%.0f', id - 1)
      break
    end
    give(messages[id - first + 1])
  end
end, function(last)
  strangers[#strangers + 1] = last
end)
out[1] = cut or read_up_to or false
for _, last in ipairs(strangers) do
  -- What is further on is read again.
  if not out[1] or last <= tonumber(out[1]) then
    out[2] = out[2] + 1
  end
end
-- Only redelivered messages have a count, so usually there is none.
if #ids > 0 and redis.call('EXISTS', attempts_key) == 1 then
  for i, count in ipairs(redis.call('HMGET', attempts_key, unpack(ids))) do
    out[3 * i + 2] = count
  end
end
return out
