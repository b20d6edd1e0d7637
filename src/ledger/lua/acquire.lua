-- Takes the lease if it is free: there is no lease, or its holder's listener has left its alive channel.
-- KEYS  leader, epoch, cursor, pending, recall, settings
-- ARGV  dispatcher: the caller's id
--       ttl_ms: how long the lease lasts
--       alive_prefix: of the alive channels
--       floor: the highest epoch that the caller has ever seen
--       may_take: '1' if the caller may take a free lease now, '0' if it only looks
--       delivers: '1' if the caller delivers to consumers, so that the group's settings concern it, else '0'
-- Gives a list:
--       verdict: 'acquired', 'vacant' or 'held'
--       counted: 1 if the caller's own alive channel has a subscriber on this server, else 0
--       the time in ms
--       the cursor, false for none
--       the lease as it is now, false if it is free
--       foreign values: a list of key, value, …
--       for 'acquired' also: the highest pending id, false for none
--       for 'acquired' also: the epoch before, false for none, '0' if no dispatcher wrote it
--       for 'acquired' also: the fields of the settings in the order of settings.lua, false for none; empty if they
--       don't concern the caller
--       for 'acquired' also: the run id of the server where the last term began and that of this one, false for unknown
local leader_key, epoch_key, cursor_key, pending_key, recall_key, settings_key = unpack(KEYS)
local dispatcher, ttl_ms, alive_prefix, floor, may_take, delivers = unpack(ARGV)
local DAY_MS = 86400000
local foreign = {}
local function note(key, value)
  foreign[#foreign + 1] = key
  foreign[#foreign + 1] = string.sub(value, 1, 256)
end
-- A value that no dispatcher can have written is ignored. An epoch follows the clock of Redis.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local function epoch_in(text)
  local number = string.match(text, '^%d+$') and #text <= 16 and tonumber(text)
  return number and number <= now + DAY_MS and number or nil
end
local held_cursor = redis.call('GET', cursor_key)
local cursor = cursor_in(held_cursor) or false
if held_cursor and not cursor then
  note(cursor_key, held_cursor)
end

local function counted_on(...)
  local counts, channels = {}, {}
  for i, id in ipairs({...}) do
    channels[i] = alive_prefix .. id
  end
  local reply = redis.call('PUBSUB', 'NUMSUB', unpack(channels))
  for i = 1, #channels do
    counts[i] = reply[2 * i] > 0
  end
  return unpack(counts)
end

local lease = redis.call('GET', leader_key)
local own, held
if lease then
  local holder, epoch, mode = string.match(lease, '^(%S+) (%d+) ?(%l*)$')
  if holder and #lease <= 256 and epoch_in(epoch) and (mode == '' or mode == 'ttl') then
    local holder_counted
    own, holder_counted = counted_on(dispatcher, holder)
    -- If the caller itself is not counted, subscriptions are on another server than this one, and the count says
    -- nothing.
    if holder_counted or not own or mode == 'ttl' then
      local left = redis.call('PTTL', leader_key)
      held = left >= 0 and left <= DAY_MS
      if not held then
        note(leader_key, string.format('%s, running out in %.0f ms', lease, left))
      end
    end
  else
    note(leader_key, lease)
  end
end
if own == nil then
  own = counted_on(dispatcher)
end
local answer = {held and 'held' or 'vacant', own and 1 or 0, now, cursor, held and lease or false, foreign}
if held or may_take ~= '1' then
  return answer
end

local info = redis.pcall('INFO', 'server')
local run_id = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or 'unknown'
-- Whatever the key holds must not keep a leader from beginning.
local recall = redis.pcall('GET', recall_key)
local run_id_before = type(recall) == 'string' and string.match(recall, '^%d+ (%w+) %d+$')

-- The clock keeps epochs from going back when the data set was wiped. The old value and the caller's floor keep them
-- from going back with the clock.
local before = redis.call('GET', epoch_key)
local epoch = now
for key, text in pairs({[epoch_key] = before or '0', ['the control channel'] = floor}) do
  local known = epoch_in(text)
  if known then
    epoch = math.max(epoch, known + 1)
  else
    note(key, text)
  end
end
-- After a failover the old primary may live on, with leaders of its own. So epochs change their parity with the server:
-- neither an epoch nor an id, which depends on the parity, is assigned at both.
local known = before and epoch_in(before)
if known then
  local moved = run_id_before and run_id_before ~= run_id
  local parity = (known + (moved and 1 or 0)) % 2
  epoch = epoch + (epoch + parity) % 2
end
epoch = string.format('%.0f', epoch)
-- A missing epoch (false) differs from a foreign one ('0').
before = before and (epoch_in(before) and before or '0')

-- The newest message, alone or in a bundle. Foreign members above it are ignored.
local newest = false
for place = 0, 255 do
  local member, score = unpack(redis.call('ZREVRANGE', pending_key, place, place, 'WITHSCORES'))
  if not member or tonumber(score) < 0 then
    break
  end
  local id = tonumber(score)
  if id <= MOST_ID and ours({member}, id) then
    newest = score
    break
  end
  if place == 0 then
    note(pending_key, string.format('score %s, member %s', score, member))
  end
end
for place = 0, 255 do
  local range = {'(0', '-inf', 'BYSCORE', 'REV', 'LIMIT', place, 1, 'WITHSCORES'}
  local member, score = unpack(redis.call('ZRANGE', pending_key, unpack(range)))
  if not member then
    break
  end
  local members, first = messages_in(member, score)
  local last = members and first + BUNDLE_MESSAGES - 1
  if last and last <= MOST_ID then
    newest = string.format('%.0f', math.max(last, tonumber(newest or '0')))
    break
  end
  if place == 0 then
    note(pending_key, string.format('score %s, member %s', score, member))
  end
end

local settings = {}
if delivers == '1' then
  local held = redis.call('HMGET', settings_key, 'paused_until', 'paused_since', 'paused_by', 'max_in_flight', 'rate')
  for i = 1, #held do
    settings[i] = held[i] and string.sub(held[i], 1, 256)
  end
end

-- This lets a group get a leader even when the memory is full.
try_removal(pending_key)
for _, key in ipairs({leader_key, epoch_key, recall_key}) do
  try_set(key)
end
-- From here on, any message that earlier leaders delivered may be delivered again.
redis.call('SET', epoch_key, epoch)
-- With many foreign members the newest message may not be found. The cursor has the highest id assigned.
local reached = math.max(tonumber(newest or '0'), tonumber(string.match(cursor or '', '%d+$') or '0'))
redis.call('SET', recall_key, string.format('%s %s %.0f', epoch, run_id, reached))
redis.call('SET', leader_key, dispatcher .. ' ' .. epoch .. (own and '' or ' ttl'), 'PX', ttl_ms)
answer[1] = 'acquired'
answer[5] = dispatcher .. ' ' .. epoch .. (own and '' or ' ttl')
answer[7] = newest
answer[8] = before
answer[9] = settings
answer[10] = run_id_before or false
answer[11] = run_id
return answer
