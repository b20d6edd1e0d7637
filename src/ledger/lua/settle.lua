-- Settles what came back without a result: counts the delivery that failed, or buries the message.
-- KEYS  epoch, pending, attempts, dead, recall
-- ARGV  my epoch, most deliveries, then for each message: id, verdict ('failed' | 'lost' | 'unused' | 'rejected'),
--       whether its consumer has let go of it ('let-go' | 'held'), number of the delivery, consumer, reason
-- Gives {'OK', next delivery for each: 0 = no longer pending, -1 = buried now, -2 = still pending, since its letter was
-- refused; then why one was refused, if one was} | {'STALE', epoch}
local epoch = redis.call('GET', KEYS[1])
if epoch ~= ARGV[1] then
  return {'STALE', epoch or ''}
end
local out, counts, buried, gone, recall = {'OK'}, {}, {}, {''}, 0
for i = 3, #ARGV, 6 do
  local id, verdict = ARGV[i], ARGV[i + 1]
  -- Counted from the delivery's own number, so that a repeated call counts it once, and one that comes late lowers nothing.
  local deliveries = tonumber(ARGV[i + 3])
  -- What a consumer may still have goes out again, or is buried: from here on it is not that consumer's alone.
  if ARGV[i + 2] == 'held' then
    recall = math.max(recall, tonumber(id))
  end
  if redis.call('ZCOUNT', KEYS[2], id, id) == 0 then
    gone[#gone + 1] = id
    out[#out + 1] = 0
  elseif verdict == 'rejected' or (verdict == 'failed' and deliveries >= tonumber(ARGV[2])) then
    buried[#buried + 1] = i
    out[#out + 1] = -1
  elseif verdict == 'failed' then
    if (tonumber(redis.call('HGET', KEYS[3], id)) or 0) <= deliveries then
      counts[#counts + 1] = id
      counts[#counts + 1] = deliveries + 1
    end
    out[#out + 1] = deliveries + 1
  elseif verdict == 'lost' then
    -- Whoever has it may come back with it: it counts when it goes out again.
    out[#out + 1] = deliveries + 1
  else
    out[#out + 1] = deliveries
  end
end
-- Settling goes on when Redis is full.
prove_removal(KEYS[2])
redis.call('HDEL', KEYS[3], '')
recall = raised(KEYS[5], recall)
if #counts > 0 then
  redis.call('HSET', KEYS[3], unpack(counts))
end
if recall then
  redis.call('SET', KEYS[5], recall)
end
local refused
for _, i in ipairs(buried) do
  local id = ARGV[i]
  local member = ours(redis.call('ZRANGEBYSCORE', KEYS[2], id, id, 'LIMIT', 0, 16), id)
  if member and not refused then
    -- Refused it leaves its message pending, and keeps none of the others: the removal comes after it, and is proven.
    local letter = redis.pcall('XADD', KEYS[4], '*', 'id', string.sub(member, 1, 16), 'payload', string.sub(member, 18),
      'reason', ARGV[i + 5], 'deliveries', ARGV[i + 3], 'consumer', ARGV[i + 4])
    refused = type(letter) == 'table' and letter.err
  end
  if member and refused then
    out[2 + (i - 3) / 6] = -2
  else
    redis.call('ZREMRANGEBYSCORE', KEYS[2], id, id)
    redis.call('HDEL', KEYS[3], id)
  end
end
redis.call('HDEL', KEYS[3], unpack(gone))
if refused then
  out[#out + 1] = refused
end
return out
