-- Settles what came back without a result: counts the delivery that failed, or buries the message.
-- KEYS  epoch, pending, attempts, dead, recall
-- ARGV  my epoch, most deliveries, then for each message: id, verdict ('failed' | 'lost' | 'unused' | 'rejected'),
--       whether its consumer has let go of it ('let-go' | 'held'), number of the delivery, consumer, reason
-- Gives {'OK', next delivery for each: 0 = no longer pending, -1 = buried now} | {'STALE', epoch}
local epoch = redis.call('GET', KEYS[1])
if epoch ~= ARGV[1] then
  return {'STALE', epoch or ''}
end
local kind = redis.call('TYPE', KEYS[4]).ok
if kind ~= 'stream' and kind ~= 'none' then
  return redis.error_reply('WRONGTYPE ' .. KEYS[4] .. ' is a ' .. kind .. ', not a stream')
end
-- What a consumer may still have goes out again, or is buried: from here on it is not that consumer's alone.
local term, before = string.match(redis.call('GET', KEYS[5]) or '', '^(%d+ %w+) (%d+)$')
before = tonumber(before) or 0
local recall = before
for i = 3, #ARGV, 6 do
  if ARGV[i + 2] == 'held' then
    recall = math.max(recall, tonumber(ARGV[i]))
  end
end
if term and recall > before then
  -- Under maxmemory a script whose first write needs no memory may go on.
  redis.call('DEL', KEYS[5])
  redis.call('SET', KEYS[5], string.format('%s %.0f', term, recall))
end
local out = {'OK'}
for i = 3, #ARGV, 6 do
  local id, verdict = ARGV[i], ARGV[i + 1]
  local member = redis.call('ZRANGEBYSCORE', KEYS[2], id, id)[1]
  -- Counted from the delivery's own number, so that a repeated call counts it once.
  local deliveries = tonumber(ARGV[i + 3])
  if not member then
    redis.call('HDEL', KEYS[3], id)
    out[#out + 1] = 0
  elseif verdict == 'rejected' or (verdict == 'failed' and deliveries >= tonumber(ARGV[2])) then
    redis.call('ZREMRANGEBYSCORE', KEYS[2], id, id)
    redis.call('XADD', KEYS[4], '*', 'id', string.sub(member, 1, 16), 'payload', string.sub(member, 18),
      'reason', ARGV[i + 5], 'deliveries', deliveries, 'consumer', ARGV[i + 4])
    redis.call('HDEL', KEYS[3], id)
    out[#out + 1] = -1
  elseif verdict == 'failed' then
    -- Under maxmemory a script whose first write needs no memory may go on.
    redis.call('HDEL', KEYS[3], id)
    redis.call('HSET', KEYS[3], id, deliveries + 1)
    out[#out + 1] = deliveries + 1
  elseif verdict == 'lost' then
    -- Whoever has it may come back with it: it counts when it goes out again.
    out[#out + 1] = deliveries + 1
  else
    out[#out + 1] = deliveries
  end
end
return out
