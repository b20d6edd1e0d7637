-- Takes a batch in: adds the members and moves the cursor, in one step.
-- KEYS  epoch, cursor, pending, dead
-- ARGV  my epoch, the cursor as I know it ('' for none), the cursor after the batch, how many attempts at this batch have an
--       unknown outcome, the cursor after the batch of each of these, then either score and member for each message, or of
--       one that cannot be delivered: 'dead', id, reason, excerpt
-- Gives 'OK' | {'STALE', epoch} | {'MOVED', cursor}
local epoch = redis.call('GET', KEYS[1])
if epoch ~= ARGV[1] then
  return {'STALE', epoch or ''}
end
local cursor = cursor_in(redis.call('GET', KEYS[2])) or ''
local first = 5 + tonumber(ARGV[4])
local dead = ARGV[first] == 'dead'
local members = not dead and #ARGV >= first
if cursor ~= ARGV[2] then
  local earlier = false
  for i = 5, first - 1 do
    earlier = earlier or cursor == ARGV[i]
  end
  -- What an earlier attempt has taken in is pending, since nobody has been given it yet: adding it again changes nothing. And if
  -- it was a transaction whose ZADD was refused, the members are added now. The cursor has to move on in any case: each
  -- attempt writes one of its own, so that an attempt that arrives late finds none that it knows.
  if not earlier or dead then
    return {'MOVED', cursor}
  end
end
-- The cursor's move is proven first and done last. It needs memory: a full Redis takes nothing in.
prove_set(KEYS[2])
if members then
  redis.call('ZADD', KEYS[3], unpack(ARGV, first))
elseif dead then
  -- That members can be added is proven as well: else a message would be buried for want of a right.
  redis.call('ZADD', KEYS[3], 'XX', 'GT', '-inf', '')
  redis.call('XADD', KEYS[4], '*', 'id', ARGV[first + 1], 'payload', ARGV[first + 3], 'reason', ARGV[first + 2],
    'deliveries', '0', 'consumer', '')
end
redis.call('SET', KEYS[2], ARGV[3])
return 'OK'
