-- How `intake.lua` adds messages to a stream. Arguments for each message: entry id, payload; or entry id,
-- channel, payload, if the group records channels.

-- Tries the command without changing anything: Redis refuses this id whatever the key holds.
local function try_adding(key)
  local tried = redis.pcall('XADD', key, '0-0', 'payload', '')
  if not string.find(tried.err or '', 'greater than 0-0', 1, true) then
    -- Once more, so that the error names this line.
    redis.call('XADD', key, '0-0', 'payload', '')
  end
end

-- Adds the messages from ARGV[first] on, each of `width` arguments. `repeated`: an earlier attempt has moved the cursor
-- over them. That was this script, which adds all or nothing, so they were added, even if workers have deleted them
-- since. Gives nil, or {'BEHIND', the stream's last id} if the stream has reached the first id already; then nothing
-- was added.
local function add(key, first, maxlen, width, repeated)
  if repeated then
    return nil
  end
  local words = maxlen == '0' and {key} or {key, 'MAXLEN', '~', maxlen}
  local names = width == 3 and {'channel', 'payload'} or {'payload'}
  local id = #words + 1
  for number, name in ipairs(names) do
    words[id + 2 * number - 1] = name
  end
  local function entry(i)
    words[id] = ARGV[i]
    for number = 1, #names do
      words[id + 2 * number] = ARGV[i + number]
    end
    return unpack(words)
  end
  -- If the first entry is accepted, so are the others: their ids rise.
  local refused = redis.pcall('XADD', entry(first))
  if type(refused) == 'table' and refused.err then
    local behind = string.find(refused.err, 'equal or smaller', 1, true)
      or string.find(refused.err, 'exhausted the last possible ID', 1, true)
    if not behind then
      redis.call('XADD', entry(first))
    end
    local info = redis.call('XINFO', 'STREAM', key)
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then
        return {'BEHIND', info[i + 1]}
      end
    end
  end
  for i = first + width, #ARGV, width do
    redis.call('XADD', entry(i))
  end
end
