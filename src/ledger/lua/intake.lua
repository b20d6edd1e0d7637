-- Takes a batch in: adds the members and moves the cursor, in one step.
-- KEYS  epoch, cursor, pending, dead
-- ARGV  my epoch, the cursor as I know it ('' for none), the cursor after the batch, number of members,
--       then score and member for each, then for each message that cannot be delivered: id, reason, excerpt
-- Gives 'OK' | {'STALE', epoch} | {'MOVED', cursor}
local epoch = redis.call('GET', KEYS[1])
if epoch ~= ARGV[1] then
  return {'STALE', epoch or ''}
end
local cursor = redis.call('GET', KEYS[2]) or ''
local members = tonumber(ARGV[4])
if cursor ~= ARGV[2] then
  -- An earlier attempt at this batch moved it? Then its members are there, since nobody has been given one yet. If they are
  -- not, that was a transaction whose ZADD failed, and its answer got lost: they are added now.
  local last = ARGV[3 + 2 * members]
  if cursor ~= ARGV[3] or members == 0 or redis.call('ZCOUNT', KEYS[3], last, last) > 0 then
    return {'MOVED', cursor}
  end
end
if #ARGV > 4 + 2 * members then
  local kind = redis.call('TYPE', KEYS[4]).ok
  if kind ~= 'stream' and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[4] .. ' is a ' .. kind .. ', not a stream')
  end
end
-- A script is not rolled back: what can fail comes first, the cursor last.
if members > 0 then
  redis.call('ZADD', KEYS[3], unpack(ARGV, 5, 4 + 2 * members))
end
for i = 5 + 2 * members, #ARGV, 3 do
  redis.call('XADD', KEYS[4], '*', 'id', ARGV[i], 'payload', ARGV[i + 2], 'reason', ARGV[i + 1],
    'deliveries', '0', 'consumer', '')
end
redis.call('SET', KEYS[2], ARGV[3])
return 'OK'
