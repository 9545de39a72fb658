local function oldest_ended()
  local oldest, oldest_at
  local entries = redis.call('HGETALL', KEYS[2])
  for i = 1, #entries, 2 do
    local at = tonumber(string.match(string.sub(entries[i + 1], -16), '%d+$')) or 0  -- the end alone: lines may be long
    if not oldest_at or at < oldest_at then oldest, oldest_at = entries[i], at end
  end
  return oldest, oldest_at
end

-- Remember for 10 minutes why a stream ended, at most 64 of them. An entry is `REASON MS`, or where something else ended
-- it, with tabs, `REASON BY BY_NAME SEAT EXPIRES_AT STARTED_AT DEVICE_ID DEVICE_NAME CONTENT_ID MS`: see details. Short
-- of memory this may fail (pcall); it must not change the answer.
local function record_ended(ref, reason, details)
  local entry = reason .. (details or ' ') .. string.format('%.0f', now)
  if type(redis.pcall('HSET', KEYS[2], ref, entry)) ~= 'number' then return end
  if redis.call('HLEN', KEYS[2]) > 64 then redis.call('HDEL', KEYS[2], (oldest_ended())) end
  redis.call('PEXPIRE', KEYS[2], 600000)
end
