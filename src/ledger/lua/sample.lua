-- Reads in one step how far the channel has been stored, and how many messages have been stored in all.
-- KEYS  cursor, pending, processed, dead, gaps, replayed[, stream] (stream: if the group delivers to one)
-- Gives a list:
--       the time in ms
--       the cursor, false for none
--       the number of pending messages
--       how many entries were ever added to processed, dead, gaps and stream; without a stream, 0
--       how many of those of dead were replayed, so that they are pending again
--       1 if these numbers are exact; 0 if the server does not count them (before Redis 7), so that deleted entries are
--       missing, replayed ones among them, of which 0 are told then
local cursor_key, pending_key, processed_key, dead_key, gaps_key, replayed_key, stream_key = unpack(KEYS)
local exact = 1
local function added(key)
  if not key or redis.call('EXISTS', key) == 0 then
    return 0
  end
  local info, length = redis.call('XINFO', 'STREAM', key), 0
  for i = 1, #info, 2 do
    if info[i] == 'entries-added' then
      return info[i + 1]
    elseif info[i] == 'length' then
      length = info[i + 1]
    end
  end
  exact = 0
  return length
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local counts = {added(processed_key), added(dead_key), added(gaps_key), added(stream_key)}
local replayed = exact == 1 and tonumber(redis.call('GET', replayed_key)) or 0
local bundles = redis.call('ZCOUNT', pending_key, '-inf', '(0')
local pending = redis.call('ZCARD', pending_key) + bundles * (BUNDLE_MESSAGES - 1)
return {now, redis.call('GET', cursor_key), pending, counts[1], counts[2], counts[3],
  counts[4], replayed, exact}
