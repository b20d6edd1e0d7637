-- Records results: a message that is still pending is removed and its result stored, any other is dropped.
-- KEYS  pending, processed, attempts; to raise the recall, or for a leader, recall; for a leader epoch
-- ARGV  epoch of the caller ('' for a consumer, which needs no fence: the removal decides), result limit (0: none),
--       id to raise the recall to ('' for none, 'recorded' for the highest of those recorded here),
--       then for each message: id, number of values n, n values
--       (name, value, …); n = 0 stores nothing
-- Gives {number recorded, ids that were not pending, …} | {'STALE', epoch}
if ARGV[1] ~= '' then
  local epoch = redis.call('GET', KEYS[5])
  if epoch ~= ARGV[1] then
    return {'STALE', epoch or ''}
  end
end
-- A script is not rolled back, and any command may be refused. So what can't be undone is proven first, by forms that change
-- nothing, and comes last. This also lets the script go on when Redis is full: its first write needs no memory.
redis.call('ZREMRANGEBYSCORE', KEYS[1], 1, 0)
-- Only redelivered messages have a count, so mostly there is none to clear.
local counted = redis.call('EXISTS', KEYS[3]) == 1
if counted then
  redis.call('HDEL', KEYS[3], '')
end
local raise = tonumber(ARGV[3]) or 0
if ARGV[3] == 'recorded' then
  local i = 4
  while i <= #ARGV do
    if tonumber(ARGV[i]) > raise and redis.call('ZCOUNT', KEYS[1], ARGV[i], ARGV[i]) > 0 then
      raise = tonumber(ARGV[i])
    end
    i = i + 2 + tonumber(ARGV[i + 1])
  end
end
-- A transaction that was to record the same may yet arrive: it watches the recall.
if raise > 0 then
  local term, before = string.match(redis.call('GET', KEYS[4]) or '', '^(%d+ %w+) (%d+)$')
  if term and tonumber(before) < raise then
    redis.call('SET', KEYS[4], string.format('%s %.0f', term, raise))
  end
end
local out = {0}
local i = 4
while i <= #ARGV do
  local id, last = ARGV[i], i + 1 + tonumber(ARGV[i + 1])
  if redis.call('ZCOUNT', KEYS[1], id, id) > 0 then
    if last > i + 1 then
      -- Refused it leaves its message pending: the removal comes after it, and is proven.
      if ARGV[2] == '0' then
        redis.call('XADD', KEYS[2], '*', unpack(ARGV, i + 2, last))
      else
        redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', unpack(ARGV, i + 2, last))
      end
    end
    redis.call('ZREMRANGEBYSCORE', KEYS[1], id, id)
    if counted then
      redis.call('HDEL', KEYS[3], id)
    end
    out[1] = out[1] + 1
  else
    out[#out + 1] = id
  end
  i = last + 1
end
return out
