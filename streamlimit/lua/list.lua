-- list: the live streams of a user and the user's limit.
--
-- KEYS  1 user:{USER}   2 ended:{USER}   3 epoch:{TAG}   4… stream:{USER}:1 … stream:{USER}:MAX_LIMIT
-- ARGV  1 default  limit of a user without a record, or ''
--
-- Returns {now, limit, {stream…}}; limit is false where there is neither record nor default
-- where stream = {seat, pttl, ref, started_at, device_id, device_name, content_id}, false for what is absent; times in ms.
--
-- Writes nothing.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- shared: live_streams
-- The live streams in the order of their seats. EXISTS says how many there are, so that the reading stops at the last one.
local function live_streams()
  local streams, unread = {}, redis.call('EXISTS', unpack(KEYS, 4))
  for seat = 1, #KEYS - 3 do
    if unread == 0 then break end
    local key = KEYS[seat + 3]
    local pttl = redis.call('PTTL', key)
    if pttl ~= -2 then
      unread = unread - 1
      local fields = redis.call('HMGET', key, 'ref', 'sig', 'started_at', 'device_id', 'device_name', 'content_id', 'request')
      streams[#streams + 1] = {
        seat = seat, pttl = pttl, ref = fields[1], sig = fields[2],
        -- Written by hand it may be 'nan', which would leave no order to sort by.
        started_at = tonumber(string.match(fields[3] or '', '^%d+$')) or 0,
        device_id = fields[4], device_name = fields[5], content_id = fields[6], request = fields[7],
      }
    end
  end
  return streams
end

-- What callers are told of a stream; never its signature.
local function row(stream)
  return {stream.seat, stream.pttl, stream.ref, stream.started_at, stream.device_id, stream.device_name, stream.content_id}
end
-- end shared

-- shared: whole_number
-- A hand-written limit: its whole part, or nil where it is no decimal number (tonumber alone would take 'nan' and '0x1F').
local function whole_number(text)
  return text and tonumber(string.match(text, '^%s*(-?%d+)%.?%d*%s*$'))
end
-- end shared

local streams = {}
for i, stream in ipairs(live_streams()) do streams[i] = row(stream) end
local limit = whole_number(redis.call('HGET', KEYS[1], 'limit')) or tonumber(ARGV[1])
return {now, limit and math.max(0, math.min(limit, #KEYS - 3)) or false, streams}
