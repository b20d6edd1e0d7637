-- Records that messages may have been missed. If the newest entry says the same, nothing is added: a reply was lost, or
-- a term ended before the cursor had passed the gap, and the next leader, often another dispatcher, finds it again.
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
-- Where the five values are among names and values. The other fields, the epoch among them, say when it was found.
local REASON, DISPATCHER, BEGIN, END, COUNT = 2, 4, 6, 8, 10
-- Whether it is what the newest entry says.
local function is_known()
  local newest = redis.call('XREVRANGE', gaps_key, '+', '-', 'COUNT', 1)[1]
  local function same(field)
    return newest[2][field] == ARGV[FIRST + field - 1]
  end
  if not newest or not (same(REASON) and same(BEGIN) and same(END) and same(COUNT)) then
    return false
  end
  -- Two dispatchers mean the same place only if both know it.
  local is_placed = newest[2][BEGIN] ~= 'none' and newest[2][END] ~= 'unknown'
  return same(DISPATCHER) or is_placed
end
if is_known() then
  return 'OK'
end
-- Trimmed first, because when the memory is full a script may continue if its first write needs none.
redis.call('XTRIM', gaps_key, 'MAXLEN', '~', most_entries)
redis.call('XADD', gaps_key, '*', unpack(ARGV, FIRST))
return 'OK'
