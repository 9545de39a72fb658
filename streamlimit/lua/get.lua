-- get: say which streams are live, and what they are. An edge may ask for every segment of video, so it looks at one key a
-- stream. All that is asked at one moment is answered in one run; on a Cluster, whose scripts see one user only, each alone.
--
-- KEYS  1…  stream:{USER}:SEAT of each
-- ARGV  1…  ref, sig of each, in the order of KEYS
--
-- Returns of each {now, pttl, started_at, device_id, device_name, content_id}, false for what is absent, times in ms; or 0
-- where this seat does not hold it (then see resume.lua).
--
-- Writes nothing.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local found = {}
for i, key in ipairs(KEYS) do
  -- A key of a wrong type, made by hand, must not fail the others: resume.lua tells its user.
  local fields = redis.pcall('HMGET', key, 'ref', 'sig', 'started_at', 'device_id', 'device_name', 'content_id')
  if fields[1] == ARGV[2 * i - 1] and fields[2] == ARGV[2 * i] then
    found[i] = {now, redis.call('PTTL', key), tonumber(fields[3]) or 0, fields[4], fields[5], fields[6]}
  else
    found[i] = 0
  end
end
return found
