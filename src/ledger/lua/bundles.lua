-- Bundles: 16 messages with consecutive ids that are one member of the sorted set of pending messages:
-- `<first id>*<length>,<length>,…:<message><message>…`, each length `<payload bytes>` or
-- `<channel bytes>+<payload bytes>`. Its score is the last id minus 2^53. So bundles have scores below 0, and single
-- messages do not.
--
-- A bundle is whole: all its messages are pending. A script that is about some of them first makes each of them a
-- member of its own, by `is_pending`, and then does with these what it does with any other.
local BUNDLE_MESSAGES = 16
local BELOW = 9007199254740992

-- Returns the lowest and the highest score of the bundle that a message may be in. No bundle has a score from 0 on.
local function scores_with(id)
  id = tonumber(id) - BELOW
  return string.format('%.0f', id), string.format('%.0f', math.min(id + BUNDLE_MESSAGES - 1, -1))
end

-- Returns the messages of a bundle, each as a member of its own, and the first id; nil if no dispatcher wrote it.
local function messages_in(member, score)
  local hex_id, lengths, place = string.match(member, '^(%x+)%*([%d,+]+):()')
  local first = tonumber(score) + BELOW - BUNDLE_MESSAGES + 1
  if first % 1 ~= 0 or hex_id ~= string.format('%016x', first) then
    return nil
  end
  local members = {}
  for length in string.gmatch(lengths, '[^,]+') do
    local channel, payload = string.match(length, '^(%d+)%+(%d+)$')
    payload = payload or string.match(length, '^%d+$')
    if not payload then
      return nil
    end
    local behind = place + (tonumber(channel) or 0) + tonumber(payload)
    members[#members + 1] = string.format('%016x', first + #members) .. (channel and '@' .. channel .. ':' or ':')
      .. string.sub(member, place, behind - 1)
    place = behind
  end
  if #members ~= BUNDLE_MESSAGES or place ~= #member + 1 then
    return nil
  end
  return members, first
end

-- Returns the messages of the bundle that a message is in, the first id, and the bundle's score; nil if it is in none.
local function bundle_of(pending, id)
  local low, high = scores_with(id)
  local found = redis.call('ZRANGEBYSCORE', pending, low, high, 'WITHSCORES', 'LIMIT', 0, 16)
  for i = 1, #found, 2 do
    local members, first = messages_in(found[i], found[i + 1])
    if members then
      return members, first, found[i + 1]
    end
  end
  return nil
end

-- Returns whether a message is in a bundle.
local function is_in_bundle(pending, id)
  return redis.call('ZCOUNT', pending, scores_with(id)) > 0
end

-- Returns whether a message is pending, and makes it a member of its own if it is in a bundle. The caller has tried a
-- removal from the sorted set, so after the members are added the bundle is certainly removed.
local function is_pending(pending, id)
  if redis.call('ZCOUNT', pending, id, id) > 0 then
    return true
  end
  local members, first, score
  if is_in_bundle(pending, id) then
    members, first, score = bundle_of(pending, id)
  end
  if not members then
    return false
  end
  local words = {}
  for i, member in ipairs(members) do
    words[2 * i - 1], words[2 * i] = string.format('%.0f', first + i - 1), member
  end
  redis.call('ZADD', pending, unpack(words))
  redis.call('ZREMRANGEBYSCORE', pending, score, score)
  return true
end
