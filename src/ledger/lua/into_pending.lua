-- How `intake.lua` adds messages to the sorted set of pending messages. Arguments for each message: score, member.

-- Tries the command without changing anything.
local function try_adding(key)
  redis.call('ZADD', key, 'XX', 'GT', '-inf', '')
end

-- Adds the messages from ARGV[first] on. `repeated`: an earlier attempt has moved the cursor over them. They are still
-- pending, since none was delivered yet, so adding them again changes nothing. If its ZADD was refused, they are added
-- now.
local function add(key, first, maxlen, width, repeated)
  redis.call('ZADD', key, unpack(ARGV, first))
end
