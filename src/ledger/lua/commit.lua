-- Records results: a message that is still pending is removed and its result stored, any other is dropped.
-- KEYS  pending, processed, attempts; to raise the recall, or for a leader, recall; for a leader epoch
-- ARGV  epoch of the caller ('' for a consumer, which needs no fence: the removal decides), result limit (0: none),
--       id to raise the recall to ('' for none), then for each message: id, number of values n, n values
--       (name, value, …); n = 0 stores nothing
-- Gives the number recorded | {'STALE', epoch}
if ARGV[1] ~= '' then
  local epoch = redis.call('GET', KEYS[5])
  if epoch ~= ARGV[1] then
    return {'STALE', epoch or ''}
  end
end
-- A script is not rolled back: an XADD that fails after its removal would lose the message.
local kind = redis.call('TYPE', KEYS[2]).ok
if kind ~= 'stream' and kind ~= 'none' then
  return redis.error_reply('WRONGTYPE ' .. KEYS[2] .. ' is a ' .. kind .. ', not a stream')
end
-- Only redelivered messages have a count, so mostly there is none to clear.
local counted = redis.call('EXISTS', KEYS[3]) == 1
local recorded = 0
local i = 4
while i <= #ARGV do
  local id, last = ARGV[i], i + 1 + tonumber(ARGV[i + 1])
  -- The removal comes first: under maxmemory a script whose first write needs no memory may go on.
  -- More than one: no leader gives two members one score, but if they have it, removing both must not store nothing.
  if redis.call('ZREMRANGEBYSCORE', KEYS[1], id, id) > 0 then
    recorded = recorded + 1
    if last > i + 1 then
      if ARGV[2] == '0' then
        redis.call('XADD', KEYS[2], '*', unpack(ARGV, i + 2, last))
      else
        redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', unpack(ARGV, i + 2, last))
      end
    end
    if counted then
      redis.call('HDEL', KEYS[3], id)
    end
  end
  i = last + 1
end
-- A transaction that was to record the same may yet arrive: it watches the recall.
if ARGV[3] ~= '' then
  local term, before = string.match(redis.call('GET', KEYS[4]) or '', '^(%d+ %w+) (%d+)$')
  if term then
    redis.call('SET', KEYS[4], string.format('%s %.0f', term, math.max(tonumber(before), tonumber(ARGV[3]))))
  end
end
return recorded
