-- Changes settings of a group and tells the leader, or only reads them.
-- KEYS  settings
-- ARGV  control_channel
--       notice: what is published there after a change
--       pause: '' for no change, 'resume', 'forever', or for how many ms
--       by: who pauses, may be ''
--       max_in_flight, rate: '' for no change, 'default' for none of the group's own, or the value
-- Gives the time in ms, then the fields as they are now, false for none, in the order of FIELDS
local settings_key = unpack(KEYS)
local control_channel, notice, pause, by, max_in_flight, rate = unpack(ARGV)
local FIELDS = {'paused_until', 'paused_since', 'paused_by', 'max_in_flight', 'rate'}
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local held = redis.call('HMGET', settings_key, unpack(FIELDS))
local set, gone = {}, {}
local function change(field, value)
  if value == 'default' then
    gone[#gone + 1] = field
  elseif value ~= '' then
    set[#set + 1] = field
    set[#set + 1] = value
  end
end
if pause == 'resume' then
  gone = {'paused_until', 'paused_since', 'paused_by'}
elseif pause ~= '' then
  -- A pause that is prolonged or shortened has still begun when it began.
  local goes_on = held[1] == 'forever' or (tonumber(held[1]) or 0) > now
  change('paused_until', pause == 'forever' and pause or string.format('%.0f', now + tonumber(pause)))
  change('paused_since', goes_on and held[2] or string.format('%.0f', now))
  if by == '' then
    gone[#gone + 1] = 'paused_by'
  else
    -- The name may be 'default'.
    set[#set + 1] = 'paused_by'
    set[#set + 1] = by
  end
end
change('max_in_flight', max_in_flight)
change('rate', rate)
if #set + #gone > 0 then
  -- This tries the removal below, and lets the script continue when the memory is full.
  redis.call('HDEL', settings_key, '')
  -- The leader reads it when all of this is done. Without a leader, the next one reads the settings.
  redis.call('PUBLISH', control_channel, notice)
  if #set > 0 then
    redis.call('HSET', settings_key, unpack(set))
  end
  if #gone > 0 then
    redis.call('HDEL', settings_key, unpack(gone))
  end
  held = redis.call('HMGET', settings_key, unpack(FIELDS))
end
local answer = {now}
for i = 1, #FIELDS do
  -- A value of ours is shorter.
  answer[i + 1] = held[i] and string.sub(held[i], 1, 256)
end
return answer
