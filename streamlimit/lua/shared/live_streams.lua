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
