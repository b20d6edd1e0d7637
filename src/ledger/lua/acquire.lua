-- Takes the lease if it is free: no lease stands, or its holder's listener has gone from its alive channel.
-- KEYS  leader, epoch, cursor, pending, recall
-- ARGV  dispatcher id, TTL in ms, prefix of the alive channels, highest epoch ever seen by the caller,
--       '1' if the caller may take a free lease now ('0': it only looks)
-- Gives {verdict, counted, time in ms, cursor, lease that stands, foreign values, …}, where the verdict is 'acquired',
-- 'vacant' or 'held', counted says whether the caller's own alive channel has a subscriber on this server, and the foreign
-- values are a list of key, value, …; then for 'acquired' the highest pending id or false, and the epoch before: '0' if that was
-- none of ours, false if it was not there.
local DAY_MS = 86400000
local foreign = {}
local function note(key, value)
  foreign[#foreign + 1] = key
  foreign[#foreign + 1] = string.sub(value, 1, 256)
end
-- Nothing is believed that no dispatcher can have written. An epoch follows the clock of Redis.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local function epoch_in(text)
  local number = string.match(text, '^%d+$') and #text <= 16 and tonumber(text)
  return number and number <= now + DAY_MS and number or nil
end
local held_cursor = redis.call('GET', KEYS[3])
local cursor = cursor_in(held_cursor) or false
if held_cursor and not cursor then
  note(KEYS[3], held_cursor)
end

local function counted_on(...)
  local counts, channels = {}, {}
  for i, id in ipairs({...}) do
    channels[i] = ARGV[3] .. id
  end
  local reply = redis.call('PUBSUB', 'NUMSUB', unpack(channels))
  for i = 1, #channels do
    counts[i] = reply[2 * i] > 0
  end
  return unpack(counts)
end

local lease = redis.call('GET', KEYS[1])
local own, held
if lease then
  local holder, epoch, mode = string.match(lease, '^(%S+) (%d+) ?(%l*)$')
  if holder and #lease <= 256 and epoch_in(epoch) and (mode == '' or mode == 'ttl') then
    local holder_counted
    own, holder_counted = counted_on(ARGV[1], holder)
    -- Where the caller itself is not counted, subscriptions are on another server than this: the count says nothing.
    if holder_counted or not own or mode == 'ttl' then
      local left = redis.call('PTTL', KEYS[1])
      held = left >= 0 and left <= DAY_MS
      if not held then
        note(KEYS[1], string.format('%s, running out in %.0f ms', lease, left))
      end
    end
  else
    note(KEYS[1], lease)
  end
end
if own == nil then
  own = counted_on(ARGV[1])
end
local answer = {held and 'held' or 'vacant', own and 1 or 0, now, cursor, held and lease or false, foreign}
if held or ARGV[5] ~= '1' then
  return answer
end

-- The clock keeps epochs from going back when the data set was wiped; the old value and the caller's memory keep them from
-- going back with the clock.
local before = redis.call('GET', KEYS[2])
local epoch = now
for key, text in pairs({[KEYS[2]] = before or '0', ['the control channel'] = ARGV[4]}) do
  local known = epoch_in(text)
  if known then
    epoch = math.max(epoch, known + 1)
  else
    note(key, text)
  end
end
epoch = string.format('%.0f', epoch)
-- Not there is another thing than not ours.
before = before and (epoch_in(before) and before or '0')

-- The newest message. What strangers added above it counts for nothing.
local newest = false
for place = 0, 255 do
  local member, score = unpack(redis.call('ZREVRANGE', KEYS[4], place, place, 'WITHSCORES'))
  if not member then
    break
  end
  local id = tonumber(score)
  if id >= 0 and id <= MOST_ID and ours({member}, id) then
    newest = score
    break
  end
  if place == 0 then
    note(KEYS[4], string.format('score %s, member %s', score, member))
  end
end

-- A full Redis still gets its leader.
prove_removal(KEYS[4])
for _, key in ipairs({KEYS[1], KEYS[2], KEYS[5]}) do
  prove_set(key)
end
-- Whatever earlier leaders handed out may go out again from here on.
local info = redis.pcall('INFO', 'server')
local run_id = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or 'unknown'
redis.call('SET', KEYS[2], epoch)
-- Behind many strangers the newest message is not found; the cursor knows how far ids have come.
local reached = math.max(tonumber(newest or '0'), tonumber(string.match(cursor or '', '%d+$') or '0'))
redis.call('SET', KEYS[5], string.format('%s %s %.0f', epoch, run_id, reached))
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. epoch .. (own and '' or ' ttl'), 'PX', ARGV[2])
answer[1] = 'acquired'
answer[5] = ARGV[1] .. ' ' .. epoch .. (own and '' or ' ttl')
answer[7] = newest
answer[8] = before
return answer
