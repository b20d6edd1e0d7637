-- Reads the newest dead letters without their payloads, for people.
-- KEYS  dead
-- ARGV  most_letters, most_bytes: about so many bytes are read, but at least one letter
--       most_text: the most bytes of a field that are given
-- Gives for each letter, newest first, {entry id, id, channel, reason, deliveries, consumer}; false for a missing field
local dead_key = unpack(KEYS)
local most_letters, most_bytes, most_text = unpack(ARGV)
local most, bytes, kept = tonumber(most_letters), tonumber(most_bytes), tonumber(most_text)
local out, before = {}, '+'
-- One by one, because Redis copies each letter with its payload.
while #out < most and bytes > 0 do
  local letter = redis.call('XREVRANGE', dead_key, before, '-', 'COUNT', 1)[1]
  if not letter then
    break
  end
  local fields = {}
  for i = 1, #letter[2], 2 do
    fields[letter[2][i]] = string.sub(letter[2][i + 1], 1, kept)
    bytes = bytes - #letter[2][i + 1]
  end
  before = '(' .. letter[1]
  out[#out + 1] = {letter[1], fields.id or false, fields.channel or false, fields.reason or false,
    fields.deliveries or false, fields.consumer or false}
  if letter[1] == '0-1' then
    break
  end
end
return out
