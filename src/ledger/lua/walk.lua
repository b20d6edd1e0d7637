-- Reading pending messages in the order of their ids.

-- Reads members with messages after an id, up to `up_to`: single ones, and bundles whole, also if they begin before.
-- Calls `take` with each, and with the first and the last id of a bundle, until `most` messages or `bytes` bytes were
-- taken, but at least once if there is one. Calls `pass` with the last id of what would be a bundle and was put there
-- by a stranger. Returns the id up to which it has read; nil if there is nothing.
--
-- It reads several members at a time, in growing steps, because sizes are not known in advance and one step must stay
-- small if payloads are large. Members of strangers may have any score, so between two ids as well: where reading ends
-- at one, the id below is returned, and reading begins at the id above. Limitation: a stranger's member with exactly
-- the score of a message may hide it.
--
-- With `apart`, bundles are not read.
local function walk(pending, after, up_to, most, bytes, take, pass, apart)
  local low, high = string.format('(%.0f', tonumber(after) - BELOW), select(2, scores_with(up_to))
  if apart then
    low, high = '(0', '(0'
  end
  local bundles, at, read_before, passed, step, taken, read_up_to = {}, 1, 0, 0, 8, 0, nil

  -- The next bundle, with its first and its last id.
  local bundle, first, last
  local function next_bundle()
    if at > #bundles then
      local count = math.ceil(math.min(step, math.max(most - taken, 1)) / BUNDLE_MESSAGES)
      -- However many are passed, each is read once, in not too many reads.
      count = math.max(count, math.min(passed, 10000))
      bundles, at = redis.call('ZRANGEBYSCORE', pending, low, high, 'WITHSCORES', 'LIMIT', read_before, count), 1
      read_before = read_before + count
    end
    bundle = bundles[at]
    if bundle then
      last = tonumber(bundles[at + 1]) + BELOW
      first, at = last - BUNDLE_MESSAGES + 1, at + 2
    end
  end
  local function next_bundle_of_ours()
    next_bundle()
    while bundle and string.sub(bundle, 1, 17) ~= string.format('%016x*', first) do
      pass(last)
      passed = passed + 1
      next_bundle()
    end
  end

  -- Where single members follow.
  local from = string.format('%.0f', tonumber(after) + 1)
  -- The score of the next one. Only if there are bundles, because a score as text costs Redis more than the rest of a
  -- member.
  local single
  local function next_single()
    single = redis.call('ZRANGEBYSCORE', pending, from, up_to, 'WITHSCORES', 'LIMIT', 0, 1)[2]
  end

  next_bundle_of_ours()
  if bundle then
    next_single()
  end
  while bytes > 0 and taken < most do
    local size = 0
    if bundle and not (single and tonumber(single) < first) then
      take(bundle, first, last)
      taken, size, read_up_to, from = taken + BUNDLE_MESSAGES, #bundle, last, string.format('%.0f', last + 1)
      if single and tonumber(single) < last + 1 then
        next_single()
      end
      next_bundle_of_ours()
    else
      local before_bundle = bundle and string.format('(%.0f', first) or up_to
      local found =
        redis.call('ZRANGEBYSCORE', pending, from, before_bundle, 'LIMIT', 0, math.min(step, most - taken))
      if #found == 0 then
        break
      end
      local read = 0
      while read < #found and size < bytes do
        read = read + 1
        take(found[read])
        size = size + #found[read]
      end
      taken = taken + read
      local scores =
        redis.call('ZRANGEBYSCORE', pending, from, up_to, 'WITHSCORES', 'LIMIT', read - 1, bundle and 2 or 1)
      read_up_to, from, single = math.floor(tonumber(scores[2])), '(' .. scores[2], scores[4]
    end
    bytes = bytes - size
    if size * 4 < bytes then
      step = math.min(step * 2, 256)
    end
  end
  return read_up_to and string.format('%.0f', read_up_to)
end
