-- Records that messages may have been missed. The newest entry is not repeated: it is there when a reply got lost, or when the
-- term ended before the cursor had passed the gap.
-- KEYS  epoch, gaps      ARGV  my epoch, most entries, fields…, 'epoch', my epoch      Gives 'OK' | {'STALE', epoch}
local epoch = redis.call('GET', KEYS[1])
if epoch ~= ARGV[1] then
  return {'STALE', epoch or ''}
end
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if newest and table.concat(newest[2], '\n', 1, #newest[2] - 2) == table.concat(ARGV, '\n', 3, #ARGV - 2) then
  return 'OK'
end
-- Trimmed first: under maxmemory a script whose first write needs no memory may go on.
redis.call('XTRIM', KEYS[2], 'MAXLEN', '~', ARGV[2])
redis.call('XADD', KEYS[2], '*', unpack(ARGV, 3))
return 'OK'
