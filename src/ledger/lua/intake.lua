-- Takes a batch in: adds the members and moves the cursor, in one step.
-- KEYS  epoch, cursor, pending, dead
-- ARGV  my epoch, the cursor as I know it ('' for none), the cursor after the batch, then either score and member for
--       each message, or of one that cannot be delivered: 'dead', id, reason, excerpt
-- Gives 'OK' | {'STALE', epoch} | {'MOVED', cursor}
local epoch = redis.call('GET', KEYS[1])
if epoch ~= ARGV[1] then
  return {'STALE', epoch or ''}
end
local cursor = cursor_in(redis.call('GET', KEYS[2])) or ''
local dead = ARGV[4] == 'dead'
local members = not dead and #ARGV > 3
if cursor ~= ARGV[2] then
  -- An earlier attempt at this batch moved it? Then its members are there, since nobody has been given one yet. If they are
  -- not, that was a transaction whose ZADD failed, and its answer got lost: they are added now.
  local last = ARGV[#ARGV - 1]
  if cursor ~= ARGV[3] or not members or redis.call('ZCOUNT', KEYS[3], last, last) > 0 then
    return {'MOVED', cursor}
  end
end
-- The cursor's move is proven first and done last. It needs memory: a full Redis takes nothing in.
prove_set(KEYS[2])
if members then
  redis.call('ZADD', KEYS[3], unpack(ARGV, 4))
elseif dead then
  -- That members can be added is proven as well: else a message would be buried for want of a right.
  redis.call('ZADD', KEYS[3], 'XX', 'GT', '-inf', '')
  redis.call('XADD', KEYS[4], '*', 'id', ARGV[5], 'payload', ARGV[7], 'reason', ARGV[6], 'deliveries', '0', 'consumer', '')
end
redis.call('SET', KEYS[2], ARGV[3])
return 'OK'
