-- Stores a batch: adds its messages to their destination and moves the cursor, in one step. The text of the
-- destination's file, `into_pending.lua` or `into_stream.lua`, is put in front of this one.
-- KEYS  epoch, cursor, dead, destination
-- ARGV  my_epoch
--       expected: the cursor as the caller knows it, '' for none
--       next_cursor: the cursor after the batch
--       doubts: how many attempts at this batch have an unknown outcome
--       maxlen: about how many entries a stream keeps, 0 for all
--       width: how many arguments each message has
--       then for each of these attempts the cursor that it writes
--       then for each message what its destination needs; or for one that can't be delivered: 'dead', id, reason,
--       channel or '', excerpt
-- Gives 'OK' | {'STALE', epoch} | {'MOVED', cursor}
local epoch_key, cursor_key, dead_key, destination_key = unpack(KEYS)
local my_epoch, expected, next_cursor, doubts, maxlen, width = unpack(ARGV, 1, 6)
local FIRST = 7
local epoch = redis.call('GET', epoch_key)
if epoch ~= my_epoch then
  return {'STALE', epoch or ''}
end
local cursor = cursor_in(redis.call('GET', cursor_key)) or ''
local first = FIRST + tonumber(doubts)
local dead = ARGV[first] == 'dead'
local messages = not dead and #ARGV >= first
local earlier = false
if cursor ~= expected then
  for i = FIRST, first - 1 do
    earlier = earlier or cursor == ARGV[i]
  end
  -- An earlier attempt has moved the cursor. It must move again, because each attempt writes a cursor of its own, so
  -- that an attempt that arrives late does not know the cursor.
  if not earlier or dead then
    return {'MOVED', cursor}
  end
end
-- The cursor's move is tried first and made last. It needs memory, so nothing is stored when the memory is full.
try_set(cursor_key)
if messages then
  add(destination_key, first, maxlen, tonumber(width), earlier)
elseif dead then
  -- Adding messages is tried as well. Otherwise a missing right would send a message to the dead letters.
  try_adding(destination_key)
  redis.call('XADD', dead_key, '*', 'id', ARGV[first + 1], 'payload', ARGV[first + 4], 'reason', ARGV[first + 2],
    'deliveries', '0', 'consumer', '', channel_field(ARGV[first + 3]))
end
redis.call('SET', cursor_key, next_cursor)
return 'OK'
