-- Stores a batch: adds the members and moves the cursor, in one step.
-- KEYS  epoch, cursor, pending, dead
-- ARGV  my_epoch
--       expected: the cursor as the caller knows it, '' for none
--       next_cursor: the cursor after the batch
--       doubts: how many attempts at this batch have an unknown outcome
--       then for each of these attempts the cursor that it writes
--       then for each message: score, member; or for one that can't be delivered: 'dead', id, reason,
--       channel or '', excerpt
-- Gives 'OK' | {'STALE', epoch} | {'MOVED', cursor}
local epoch_key, cursor_key, pending_key, dead_key = unpack(KEYS)
local my_epoch, expected, next_cursor, doubts = unpack(ARGV, 1, 4)
local FIRST = 5
local epoch = redis.call('GET', epoch_key)
if epoch ~= my_epoch then
  return {'STALE', epoch or ''}
end
local cursor = cursor_in(redis.call('GET', cursor_key)) or ''
local first = FIRST + tonumber(doubts)
local dead = ARGV[first] == 'dead'
local members = not dead and #ARGV >= first
if cursor ~= expected then
  local earlier = false
  for i = FIRST, first - 1 do
    earlier = earlier or cursor == ARGV[i]
  end
  -- An earlier attempt has moved the cursor. Its members are still pending, since none was delivered yet, so adding
  -- them again changes nothing. If its ZADD was refused, they are added now. The cursor must move in any case, because
  -- each attempt writes a cursor of its own, so that an attempt that arrives late does not know the cursor.
  if not earlier or dead then
    return {'MOVED', cursor}
  end
end
-- The cursor's move is tried first and made last. It needs memory, so nothing is stored when the memory is full.
try_set(cursor_key)
if members then
  redis.call('ZADD', pending_key, unpack(ARGV, first))
elseif dead then
  -- Adding members is tried as well. Otherwise a missing right would send a message to the dead letters.
  redis.call('ZADD', pending_key, 'XX', 'GT', '-inf', '')
  redis.call('XADD', dead_key, '*', 'id', ARGV[first + 1], 'payload', ARGV[first + 4], 'reason', ARGV[first + 2],
    'deliveries', '0', 'consumer', '', channel_field(ARGV[first + 3]))
end
redis.call('SET', cursor_key, next_cursor)
return 'OK'
