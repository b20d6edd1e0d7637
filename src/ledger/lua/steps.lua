-- The beginning of scripts that write several keys: how such a step happens whole or not at all.
--
-- Redis does not roll a script back, and it may refuse any command: for a missing right, a renamed command, a key of
-- another type, a full memory, a server that became a replica. So a script
--   1. reads, and tries each command that it depends on, in a form that changes nothing on the same key;
--   2. writes what may still be refused for what the key holds;
--   3. last makes the writes that can't be undone, all of which were tried.
-- With full memory Redis refuses a script's first write if that may need memory, and none after it. A removal is tried
-- first where full memory must not stop the step.

-- No dispatcher makes ids beyond this: ids follow the clock, and doubles are exact up to 2^53.
local MOST_ID = 6755399441055744

-- Returns the text if a dispatcher can have written it as a cursor, else nil, which counts as no cursor.
local function cursor_in(text)
  local marker, offset, id = string.match(text or '', '^([!-~]+) (%d+) (%d+)$')
  -- A leader's marker is its epoch and a number.
  local epoch, count = string.match(marker or '', '^(%d+)%.(%d+)$')
  local plain = marker and #marker <= 160 and (not epoch or #epoch <= 15 and #count <= 15)
    and #offset <= 15 and #id <= 16 and tonumber(id) <= MOST_ID
    and not string.find(offset .. ' ' .. id, '%f[%d]0%d')
  return plain and text or nil
end

local function try_removal(pending)
  redis.call('ZREMRANGEBYSCORE', pending, 1, 0)
end

local function try_set(key)
  -- On lines of their own, by which errors are told apart.
  local exists = redis.call('EXISTS', key) == 1
  redis.call('SET', key, '', exists and 'NX' or 'XX')
end

-- Returns the member with this id among those with its score, because other programs may have added some.
local function ours(members, id)
  local prefix = string.format('%016x', tonumber(id))
  for _, member in ipairs(members) do
    if string.sub(member, 1, 16) == prefix and string.find(member, '^[:@]', 17) then
      return member
    end
  end
  return nil
end

-- Returns the id, the channel or '' and the payload of a member, which is `<id>:<payload>` or
-- `<id>@<channel length>:<channel><payload>`.
local function parts_of(member)
  local length, begin = string.match(member, '^@(%d+):()', 17)
  local payload = begin and begin + tonumber(length) or 18
  return string.sub(member, 1, 16), begin and string.sub(member, begin, payload - 1) or '', string.sub(member, payload)
end

-- Returns the member of a message, whose id is given in hexadecimal. `channel` is nil if that is not recorded.
local function member_of(hex_id, channel, payload)
  return hex_id .. (channel and '@' .. #channel .. ':' .. channel or ':') .. payload
end

-- The longest wait before a redelivery, in milliseconds: NACK has 32 bits for it.
local MOST_WAIT_MS = 4294967295
local DAY_MS = 86400000

-- Returns Redis's time in milliseconds, with microseconds as a fraction.
local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + tonumber(time[2]) / 1000
end

-- Takes apart what `attempts` has for a message: the number of its next delivery; when that is due, as ` @<ms> +<wait>`
-- or ''; and what happened before the message was replayed from the dead letters, '' for nothing.
local function attempts_in(text)
  local number, rest = string.match(text or '', '^(%d+)(.*)$')
  local time, history = string.match(rest or '', '^( @%d+ %+%d+)(.*)$')
  -- What looks like a time and is none is dropped.
  history = history or string.match(rest or '', '^ @[^ ]*(.*)$') or rest or ''
  return tonumber(number) or 0, time or '', history
end

-- Returns when a delivery is due that waits from now on, as `attempts` has it; '' without a wait.
local function due_after(wait_ms)
  local wait = math.min(tonumber(wait_ms), MOST_WAIT_MS)
  return wait > 0 and string.format(' @%.0f +%.0f', math.ceil(now_ms() + wait), wait) or ''
end

-- Returns how many milliseconds remain until this time. If it is further ahead than its wait, Redis's clock was set
-- back: then the same wait begins again, but not for a leader that has waited already. A time more than a day beyond
-- its wait is not believed.
local function remaining_ms(time, now, has_waited)
  local due, wait = string.match(time, '^ @(%d+) %+(%d+)$')
  due, wait = tonumber(due) or 0, tonumber(wait) or 0
  if wait > MOST_WAIT_MS or due - now > wait + (has_waited and 1 or DAY_MS) then
    return 0
  end
  return math.max(0, math.min(math.ceil(due - now), wait))
end

-- Returns the number of a message's next delivery or false, with the milliseconds that it must still wait behind it if
-- there are any.
local function to_deliver(text, now, has_waited)
  if not text then
    return false
  end
  local _, time = attempts_in(text)
  local remaining = time == '' and 0 or remaining_ms(time, now, has_waited)
  local number = string.match(text, '^[^ ]*')
  return remaining == 0 and number or string.format('%s %.0f', number, remaining)
end

-- Returns the fields of a dead letter that say what happened before it was replayed, if it was.
local function history_fields(history)
  local replays, deliveries, first_ms, first_reason = string.match(history, '^ (%d+) (%d+) (%d+) (.*)$')
  if replays then
    return 'replays', replays, 'earlier_deliveries', deliveries, 'first_failed_ms', first_ms,
      'first_reason', first_reason
  end
end

-- Returns the field of a dead letter with the channel, if that is recorded.
local function channel_field(channel)
  if channel ~= '' then
    return 'channel', channel
  end
end

-- Returns the recall with its id raised to this one; nil if there is none, or if its id is as high already. Tries the
-- write first.
local function raised(recall, id)
  local term, before = string.match(redis.call('GET', recall) or '', '^(%d+ %w+) (%d+)$')
  if not term or tonumber(before) >= id then
    return nil
  end
  try_set(recall)
  return string.format('%s %.0f', term, id)
end
