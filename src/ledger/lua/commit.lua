-- Records results: a message that is still pending is removed and its result stored; any other is dropped.
-- KEYS  pending, processed, attempts[, recall[, epoch]] (recall: when raising, and for leaders; epoch: leaders only)
-- ARGV  my_epoch: '' for a consumer, which needs no fence: the removal decides
--       result_maxlen: how many results the stream keeps, 0 for all
--       raise_to: the id to raise the recall to, '' for none, 'recorded' for the highest of those recorded here
--       then for each message: id, number of values n, n values (name, value, …); with n = 0 nothing is stored
-- Gives {number recorded, ids that were not pending, …} | {'STALE', epoch}
local pending_key, processed_key, attempts_key, recall_key, epoch_key = unpack(KEYS)
local my_epoch, result_maxlen, raise_to = unpack(ARGV, 1, 3)
local FIRST = 4
if my_epoch ~= '' then
  local epoch = redis.call('GET', epoch_key)
  if epoch ~= my_epoch then
    return {'STALE', epoch or ''}
  end
end
-- Redis does not roll a script back, and it may refuse any command. So each command whose effect can't be undone is
-- first tried in a form that changes nothing, and is executed last. This also lets the script continue when the memory
-- is full: its first write needs none.
redis.call('ZREMRANGEBYSCORE', pending_key, 1, 0)
-- Only redelivered messages have a count, so usually there is none to clear.
local counted = redis.call('EXISTS', attempts_key) == 1
if counted then
  redis.call('HDEL', attempts_key, '')
end
local raise = tonumber(raise_to) or 0
if raise_to == 'recorded' then
  local i = FIRST
  while i <= #ARGV do
    if tonumber(ARGV[i]) > raise and is_pending(pending_key, ARGV[i]) then
      raise = tonumber(ARGV[i])
    end
    i = i + 2 + tonumber(ARGV[i + 1])
  end
end
-- A transaction with the same results may still arrive. It watches the recall, so it then does nothing.
if raise > 0 then
  local term, before = string.match(redis.call('GET', recall_key) or '', '^(%d+ %w+) (%d+)$')
  if term and tonumber(before) < raise then
    redis.call('SET', recall_key, string.format('%s %.0f', term, raise))
  end
end
local out = {0}
local i = FIRST
while i <= #ARGV do
  local id, last = ARGV[i], i + 1 + tonumber(ARGV[i + 1])
  if is_pending(pending_key, id) then
    if last > i + 1 then
      -- If this is refused, the message stays pending: the removal comes after it, and was tried.
      if result_maxlen == '0' then
        redis.call('XADD', processed_key, '*', unpack(ARGV, i + 2, last))
      else
        redis.call('XADD', processed_key, 'MAXLEN', '~', result_maxlen, '*', unpack(ARGV, i + 2, last))
      end
    end
    redis.call('ZREMRANGEBYSCORE', pending_key, id, id)
    if counted then
      redis.call('HDEL', attempts_key, id)
    end
    out[1] = out[1] + 1
  else
    out[#out + 1] = id
  end
  i = last + 1
end
return out
