-- Settles messages that came back without a result: counts the failed delivery and says when the next one is due, or
-- moves the message to the dead letters.
-- KEYS  epoch, pending, attempts, dead, recall
-- ARGV  my_epoch, max_deliveries
--       then for each message: id, verdict ('failed' | 'lost' | 'unused' | 'rejected'), whether its consumer may still
--       hold it ('released' | 'held'), number of the delivery, milliseconds that the next leader waits before the next
--       delivery as well, consumer, reason
-- Gives {'OK', the next delivery of each message, the reason for a refusal if there was one} | {'STALE', epoch}
--       Instead of the next delivery: 0 = no longer pending, -1 = dead-lettered now, -2 = still pending, because its
--       dead letter was refused
local epoch_key, pending_key, attempts_key, dead_key, recall_key = unpack(KEYS)
local my_epoch, max_deliveries = unpack(ARGV, 1, 2)
local FIRST, WORDS = 3, 7
local epoch = redis.call('GET', epoch_key)
if epoch ~= my_epoch then
  return {'STALE', epoch or ''}
end
-- Settling continues when the memory is full.
try_removal(pending_key)
local out, counts, dying, gone, recall = {'OK'}, {}, {}, {''}, 0
for i = FIRST, #ARGV, WORDS do
  local id, verdict, hold = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  -- Counted from the delivery's own number, so that a repeated call counts it once and a late call lowers nothing.
  local deliveries = tonumber(ARGV[i + 3])
  -- A consumer may still hold this message, which is delivered again or dead-lettered: that consumer is no longer its
  -- only holder.
  if hold == 'held' then
    recall = math.max(recall, tonumber(id))
  end
  if not is_pending(pending_key, id) then
    gone[#gone + 1] = id
    out[#out + 1] = 0
  elseif verdict == 'rejected' or (verdict == 'failed' and deliveries >= tonumber(max_deliveries)) then
    dying[#dying + 1] = i
    out[#out + 1] = -1
  elseif verdict == 'failed' then
    -- A repeated call finds the delivery counted, and leaves its time as it is.
    local counted, _, history = attempts_in(redis.call('HGET', attempts_key, id))
    if counted <= deliveries then
      counts[#counts + 1] = id
      counts[#counts + 1] = deliveries + 1 .. due_after(ARGV[i + 4]) .. history
    end
    out[#out + 1] = deliveries + 1
  elseif verdict == 'lost' then
    -- Its consumer may still return a result, so the delivery counts only when the message is delivered again.
    out[#out + 1] = deliveries + 1
  else
    -- Not used: the delivery does not count, and the next one is due at once.
    out[#out + 1] = deliveries
  end
end
redis.call('HDEL', attempts_key, '')
recall = raised(recall_key, recall)
if #counts > 0 then
  redis.call('HSET', attempts_key, unpack(counts))
end
if recall then
  redis.call('SET', recall_key, recall)
end
local refused
for _, i in ipairs(dying) do
  local id = ARGV[i]
  local member = ours(redis.call('ZRANGEBYSCORE', pending_key, id, id, 'LIMIT', 0, 16), id)
  if member and not refused then
    -- If this is refused, the message stays pending and the others are settled. The removal follows it and was tried.
    local hex_id, channel, payload = parts_of(member)
    local _, _, history = attempts_in(redis.call('HGET', attempts_key, id))
    local fields = {'id', hex_id, 'payload', payload, 'reason', ARGV[i + 6], 'deliveries', ARGV[i + 3],
      'consumer', ARGV[i + 5], channel_field(channel)}
    for _, word in ipairs({history_fields(history)}) do
      fields[#fields + 1] = word
    end
    local letter = redis.pcall('XADD', dead_key, '*', unpack(fields))
    refused = type(letter) == 'table' and letter.err
  end
  if member and refused then
    out[2 + (i - FIRST) / WORDS] = -2
  else
    redis.call('ZREMRANGEBYSCORE', pending_key, id, id)
    redis.call('HDEL', attempts_key, id)
  end
end
redis.call('HDEL', attempts_key, unpack(gone))
if refused then
  out[#out + 1] = refused
end
return out
