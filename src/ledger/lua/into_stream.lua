-- How `intake.lua` adds messages to a stream. Arguments for each message: payload; or channel, payload, if the group
-- records channels.

-- Tries the command without changing anything: Redis refuses this id whatever the key holds.
local function try_adding(key)
  local tried = redis.pcall('XADD', key, '0-0', 'payload', '')
  if not string.find(tried.err or '', 'greater than 0-0', 1, true) then
    -- Once more, so that the error names this line.
    redis.call('XADD', key, '0-0', 'payload', '')
  end
end

local function fields(i, width)
  if width == 1 then
    return 'payload', ARGV[i]
  end
  return 'channel', ARGV[i], 'payload', ARGV[i + 1]
end

-- Adds an entry, and limits the stream. Gives the entry's id.
local function add_limited(key, maxlen, ...)
  local words = maxlen == '0' and {'*', ...} or {'MAXLEN', '~', maxlen, '*', ...}
  return redis.call('XADD', key, unpack(words))
end

-- Adds the messages from ARGV[first] on, each of `width` arguments. `repeated`: an earlier attempt has moved the cursor
-- over them. That was this script, which adds all or nothing, so they were added, even if workers have deleted them
-- since.
local function add(key, first, maxlen, width, repeated)
  if repeated then
    return
  end
  -- If Redis accepts the first entry, it accepts the others, unless it runs out of ids on the way. So an entry with one
  -- of the last ids is taken out again, and nothing is added. Without the right to that nothing is added at all.
  redis.call('XDEL', key, '0-0')
  local id = add_limited(key, maxlen, fields(first, width))
  if string.find(id, '18446744073709551615-', 1, true) == 1 then
    redis.call('XDEL', key, id)
    error('the stream ' .. key .. ' has exhausted the last possible ID')
  end
  local last = #ARGV - width + 1
  for i = first + width, last - 1, width do
    redis.call('XADD', key, '*', fields(i, width))
  end
  if last > first then
    add_limited(key, maxlen, fields(last, width))
  end
end
