-- Takes the lease if it is free: no lease stands, or its holder's listener has gone from its alive channel.
-- KEYS  leader, epoch, cursor, pending, recall
-- ARGV  dispatcher id, TTL in ms, prefix of the alive channels, highest epoch ever seen by the caller,
--       '1' if the caller may take a free lease now ('0': it only looks)
-- Gives {'acquired', epoch, cursor, highest pending score} | {'vacant', 0, cursor} | {'held', lease, cursor}; what is
-- not there is false.
local cursor = redis.call('GET', KEYS[3])
local lease = redis.call('GET', KEYS[1])
if lease then
  local holder = string.match(lease, '^(%S+)')
  if redis.call('PUBSUB', 'NUMSUB', ARGV[3] .. holder)[2] > 0 then
    return {'held', lease, cursor}
  end
end
if ARGV[5] ~= '1' then
  return {'vacant', '0', cursor}
end
-- The clock keeps epochs from going back when the data set was wiped; the old value and the caller's memory
-- keep them from going back with the clock.
local time = redis.call('TIME')
local epoch = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
epoch = math.max(epoch, (tonumber(redis.call('GET', KEYS[2])) or 0) + 1, tonumber(ARGV[4]) + 1)
epoch = string.format('%.0f', epoch)
local newest = redis.call('ZREVRANGE', KEYS[4], 0, 0, 'WITHSCORES')[2] or false
-- A script whose first write needs no memory may go on under maxmemory: a full Redis still gets its leader.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], epoch)
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. epoch, 'PX', ARGV[2])
-- Whatever earlier leaders handed out may go out again from here on. Its type does not matter: it is written anew.
local recall = math.ceil(tonumber(newest or '0'))
local info = redis.pcall('INFO', 'server')
local run_id = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or 'unknown'
redis.call('SET', KEYS[5], string.format('%s %s %.0f', epoch, run_id, recall))
return {'acquired', epoch, cursor, newest}
