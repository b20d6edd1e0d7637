-- Reads the next entries of a stream, and how many were ever added and removed.
-- KEYS  stream
-- ARGV  after: the id of the last entry that was read, '-' for none
--       most_entries, most_bytes: at least one entry is given if there is one
-- Gives {entries ever added, false if the server does not count them (before Redis 7),
--        the number of entries,
--        the id of the newest entry ever added,
--        the id of the oldest entry, false for none,
--        then the entries, each as {id, {name, value, …}}}
local stream_key = unpack(KEYS)
local after, most_entries, most_bytes = unpack(ARGV)
if redis.call('EXISTS', stream_key) == 0 then
  return {0, 0, '0-0', false}
end
local info, out = redis.call('XINFO', 'STREAM', stream_key), {false, 0, '0-0', false}
for i = 1, #info, 2 do
  if info[i] == 'entries-added' then
    out[1] = info[i + 1]
  elseif info[i] == 'length' then
    out[2] = info[i + 1]
  elseif info[i] == 'last-generated-id' then
    out[3] = info[i + 1]
  elseif info[i] == 'first-entry' then
    out[4] = info[i + 1] and info[i + 1][1]
  end
end
-- In growing steps, because sizes are not known in advance. Behind the last of all ids there is no range.
local most, bytes, step, taken = tonumber(most_entries), tonumber(most_bytes), 1, 0
while taken < most and bytes > 0 and after ~= out[3] do
  local begin = after == '-' and '-' or '(' .. after
  local entries = redis.call('XRANGE', stream_key, begin, '+', 'COUNT', math.min(step, most - taken))
  if #entries == 0 then
    break
  end
  local before = bytes
  for _, entry in ipairs(entries) do
    for _, word in ipairs(entry[2]) do
      bytes = bytes - #word
    end
    after, taken = entry[1], taken + 1
    out[#out + 1] = entry
    if bytes <= 0 then
      break
    end
  end
  if (before - bytes) * 4 < bytes then
    step = math.min(step * 2, 256)
  end
end
return out
