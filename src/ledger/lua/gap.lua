-- Records that messages may have been missed. If the newest entry is the same, nothing is added: a reply was lost, or
-- the term ended before the cursor had passed the gap.
-- KEYS  epoch, gaps
-- ARGV  my_epoch, most_entries, then the entry's fields: name, value, …; the first five say what is missing
-- Gives 'OK' | {'STALE', epoch}
local epoch_key, gaps_key = unpack(KEYS)
local my_epoch, most_entries = unpack(ARGV, 1, 2)
local epoch = redis.call('GET', epoch_key)
if epoch ~= my_epoch then
  return {'STALE', epoch or ''}
end
local FIRST = 3
-- Names and values of five fields. The others, the epoch among them, say when it was found.
local SAME = 10
local newest = redis.call('XREVRANGE', gaps_key, '+', '-', 'COUNT', 1)[1]
if newest and #newest[2] >= SAME
    and table.concat(newest[2], '\n', 1, SAME) == table.concat(ARGV, '\n', FIRST, FIRST + SAME - 1) then
  return 'OK'
end
-- Trimmed first, because when the memory is full a script may continue if its first write needs none.
redis.call('XTRIM', gaps_key, 'MAXLEN', '~', most_entries)
redis.call('XADD', gaps_key, '*', unpack(ARGV, FIRST))
return 'OK'
