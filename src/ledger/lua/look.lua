-- Reads pending messages in order of intake, for people: without a lease, and by default without their payloads.
-- KEYS  pending, attempts
-- ARGV  after, up_to: the range of ids, without the first and with the last
--       most_messages, most_bytes: at least one message is read if there is one
--       whole: '1' to give the payloads, too
-- Gives {id read up to or false if the range is empty, then for each message: its member, or the beginning of it that
--        ends before the payload; the bytes of the payload; what attempts has for it, or false}
--       The messages of a bundle are given as members of their own
local pending_key, attempts_key = unpack(KEYS)
local after, up_to, most_messages, most_bytes, whole = unpack(ARGV)
local most, bytes = tonumber(most_messages), tonumber(most_bytes)
local out, ids, step = {false}, {}, 1

local function give(member)
  local length, channel = string.match(string.sub(member, 17, 24), '^@(%d+):()')
  local head = channel and 15 + channel + tonumber(length) or 17
  out[#out + 1] = whole == '1' and member or string.sub(member, 1, head)
  out[#out + 1] = math.max(#member - head, 0)
  out[#out + 1] = false
  -- A foreign member has no id, and no count.
  ids[#ids + 1] = string.format('%.0f', tonumber(string.sub(member, 1, 16), 16) or 0)
end

local bundle, first, last = next_bundle(pending_key, after, up_to)
-- Members of single messages up to the next bundle, then that bundle, and so on. In growing steps, because sizes are
-- not known in advance: Redis copies each member that a step reads.
while #ids < most and bytes > 0 do
  local count = math.min(step, most - #ids)
  local before_bundle = bundle and string.format('(%.0f', first) or up_to
  local found = redis.call('ZRANGEBYSCORE', pending_key, '(' .. after, before_bundle, 'LIMIT', 0, count)
  local before = bytes
  if #found > 0 then
    local read = 0
    while read < #found and bytes > 0 do
      read = read + 1
      give(found[read])
      bytes = bytes - #found[read]
    end
    after = redis.call('ZRANGEBYSCORE', pending_key, '(' .. after, up_to, 'WITHSCORES', 'LIMIT', read - 1, 1)[2]
  elseif bundle then
    local members = messages_in(bundle, last - BELOW)
    local id = math.max(first, tonumber(after) + 1)
    bytes = bytes - #bundle
    while members and id <= math.min(last, tonumber(up_to)) and #ids < most do
      give(members[id - first + 1])
      id = id + 1
    end
    if not members then
      give(bundle)
      id = math.ceil(last) + 1
    end
    after = string.format('%.0f', id - 1)
    bundle, first, last = next_bundle(pending_key, after, up_to)
  else
    break
  end
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
