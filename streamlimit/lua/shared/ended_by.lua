-- The middle of an entry of ended:{USER}, by which a repetition tells what the first attempt ended. `by` is SEAT.REF of an
-- admission, or the name of an operation.
local function details(stream, by, by_name)
  local words = {
    by, by_name, stream.seat, string.format('%.0f', now + stream.pttl), string.format('%.0f', stream.started_at),
    stream.device_id, stream.device_name, stream.content_id,
  }
  for i = 1, 8 do words[i] = string.gsub(words[i] or '', '%c', ' ') end
  return '\t' .. table.concat(words, '\t') .. '\t'
end

-- What an admission, given by its REF, or an operation ended since it began, in the order in which it did.
local function ended_by(by, since)
  local form = '^(%S+)\t([^\t]*)\t[^\t]*\t(%d+)\t(%-?%d+)\t(%-?%d+)\t([^\t]*)\t([^\t]*)\t([^\t]*)\t(%d+)$'
  local found, entries = {}, redis.call('HGETALL', KEYS[2])
  for i = 1, #entries, 2 do
    local reason, whom, seat, expires_at, started_at, device_id, device_name, content_id, at =
      string.match(entries[i + 1], form)
    if whom and string.match(whom, '[^.]*$') == by and tonumber(at) >= since then
      found[#found + 1] = {
        seat = tonumber(seat), pttl = expires_at - at, ref = entries[i], started_at = tonumber(started_at),
        device_id = device_id ~= '' and device_id, device_name = device_name ~= '' and device_name,
        content_id = content_id ~= '' and content_id, reason = reason, age = now - at,
      }
    end
  end
  table.sort(found, function(a, b)
    if (a.reason == 'evicted') ~= (b.reason == 'evicted') then return b.reason == 'evicted' end
    return eviction_order(a, b)
  end)
  for i, stream in ipairs(found) do
    stream.pttl = stream.pttl - stream.age
    found[i] = {row(stream), stream.reason}
  end
  return found
end
