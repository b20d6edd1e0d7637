-- Puts dead letters back among the pending messages, each under its own id, and tells the leader. A letter that is gone
-- was replayed or removed by someone else, or by an earlier attempt at this call.
-- KEYS  pending, dead, attempts, recall, replayed
-- ARGV  control_channel, then the ids of the letters' entries
-- Gives for each letter: 'replayed', 'gone', 'pending' (a message with its id is), 'truncated' (only its beginning was
--       kept) or 'foreign' (no dispatcher wrote it)
local pending_key, dead_key, attempts_key, recall_key, replayed_key = unpack(KEYS)
local control_channel = unpack(ARGV, 1, 1)
local FIRST = 2

-- Returns the letter's fields and, in milliseconds since 1970, when it was written.
local function letter_at(entry)
  local found = redis.call('XRANGE', dead_key, entry, entry)[1]
  if not found then
    return nil
  end
  local fields = {}
  for i = 1, #found[2], 2 do
    fields[found[2][i]] = found[2][i + 1]
  end
  return fields, string.match(found[1], '^%d+')
end

local out, entries, notice, members, attempts, highest = {}, {}, {'returned'}, {}, {}, 0
for i = FIRST, #ARGV do
  local fields, written_ms = letter_at(ARGV[i])
  local hex_id = fields and string.match(fields.id or '', '^[0-9a-f]+$')
  local id = hex_id and #hex_id == 16 and tonumber(hex_id, 16)
  local verdict = 'replayed'
  if not fields then
    verdict = 'gone'
  elseif not id or id > MOST_ID or not fields.payload then
    verdict = 'foreign'
  elseif fields.deliveries == '0' then
    -- It was never pending, because it is too large to be delivered.
    verdict = 'truncated'
  else
    local score = string.format('%.0f', id)
    local alone = redis.call('ZCOUNT', pending_key, score, score) > 0
    if members[score] or alone or is_in_bundle(pending_key, score) then
      verdict = 'pending'
    else
      members[score] = member_of(hex_id, fields.channel, fields.payload)
      -- Deliveries begin anew. What happened before is written into the letter again if it comes to that.
      attempts[#attempts + 1] = score
      attempts[#attempts + 1] = table.concat({'1', (tonumber(fields.replays) or 0) + 1,
        (tonumber(fields.earlier_deliveries) or 0) + (tonumber(fields.deliveries) or 0),
        fields.first_failed_ms or written_ms, fields.first_reason or fields.reason or ''}, ' ')
      entries[#entries + 1] = ARGV[i]
      notice[#notice + 1] = hex_id
      highest = math.max(highest, id)
    end
  end
  out[#out + 1] = verdict
end
if #entries == 0 then
  return out
end
redis.call('ZADD', pending_key, 'XX', 'GT', '-inf', '')
try_removal(pending_key)
redis.call('HDEL', attempts_key, '')
redis.call('XDEL', dead_key, '0-0')
local replayed = tonumber(redis.call('GET', replayed_key)) or 0
try_set(replayed_key)
-- A consumer may still hold a message from before it died, so it is no longer the only holder.
local recall = raised(recall_key, highest)
-- The leader reads it when all of this is done. Without a leader, the next one finds the messages pending.
redis.call('PUBLISH', control_channel, table.concat(notice, ' '))
redis.call('HSET', attempts_key, unpack(attempts))
redis.call('SET', replayed_key, string.format('%.0f', replayed + #entries))
if recall then
  redis.call('SET', recall_key, recall)
end
for score, member in pairs(members) do
  redis.call('ZADD', pending_key, score, member)
end
redis.call('XDEL', dead_key, unpack(entries))
return out
