-- Stands before every script that writes: how its step happens whole or not at all.
--
-- Redis does not roll a script back, and it may refuse any command: for a missing right, a renamed command, a key of
-- another type, a full memory, a server that became a replica. So a script
--   1. looks, and proves what it can't do without, by forms of the same commands on the same keys that change nothing;
--   2. writes what may yet be refused for what the key holds;
--   3. last writes what can't be undone, which has been proven.
-- Under maxmemory Redis refuses a script's first write if that may need memory, and none after it. A proven removal goes
-- first where a full Redis must not hold the step up.

-- Ids and scores beyond this were not made by us: ids follow the clock, and doubles are exact up to 2^53.
local MOST_ID = 6755399441055744

-- The cursor as a dispatcher would read it; nil for anything else, which counts as none.
local function cursor_in(text)
  local marker, offset, id = string.match(text or '', '^([!-~]+) (%d+) (%d+)$')
  -- A leader's marker is its epoch and a number.
  local epoch, count = string.match(marker or '', '^(%d+)%.(%d+)$')
  local plain = marker and #marker <= 160 and (not epoch or #epoch <= 15 and #count <= 15)
    and #offset <= 15 and #id <= 16 and tonumber(id) <= MOST_ID
    and not string.find(offset .. ' ' .. id, '%f[%d]0%d')
  return plain and text or nil
end

local function prove_removal(pending)
  redis.call('ZREMRANGEBYSCORE', pending, 1, 0)
end

local function prove_set(key)
  redis.call('SET', key, '', redis.call('EXISTS', key) == 1 and 'NX' or 'XX')
end

-- The member with this id among those with its score; a stranger may have added others.
local function ours(members, id)
  local prefix = string.format('%016x:', tonumber(id))
  for _, member in ipairs(members) do
    if string.sub(member, 1, 17) == prefix then
      return member
    end
  end
  return nil
end

-- The recall with its id raised to this one, if there is a recall that does not say so; proves that it can be written.
local function raised(recall, id)
  local term, before = string.match(redis.call('GET', recall) or '', '^(%d+ %w+) (%d+)$')
  if not term or tonumber(before) >= id then
    return nil
  end
  prove_set(recall)
  return string.format('%s %.0f', term, id)
end
