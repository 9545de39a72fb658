-- trim: end a user's streams until no more than a number of them is left, and set the user's limit.
--
-- KEYS  1 user:{USER}   2 ended:{USER}   3 epoch:{TAG}   4… stream:{USER}:1 … stream:{USER}:MAX_LIMIT
-- ARGV  1 keep         how many streams may stay
--       2 reason       'terminated' or 'limit_lowered'
--       3 stale_below  ms; a stream with a lower PTTL is stale
--       4 limit        the user's new limit, or '' to leave the record alone
--       5 operation    names this operation, so that its repetition is recognised; '' or absent by hand
--       6 valid_until  Unix ms; as in admit.lua; absent by hand
--
-- Returns {now, {{stream, reason}…}}, what it ended, in the order of eviction; where an earlier attempt of the same
-- operation ended streams, those, and nothing is changed; or {'late'}: nothing was done, and nothing will be
-- where stream = {seat, pttl, ref, started_at, device_id, device_name, content_id}, false for what is absent; times in ms.
--
-- Writes: deletes the seats, records the ends in ended:{USER}, sets `limit` in user:{USER}. What it is about to write or to
-- count and is no hash, so that somebody overwrote it by hand, is deleted first.

local keep, reason, stale_below, limit = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), ARGV[4]
local operation = ARGV[5] or ''
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

-- shared: record_ended
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
-- end shared

-- shared: eviction_order
-- Stale streams first, then the oldest; of equals the lower seat.
local function eviction_order(a, b)
  local a_stale, b_stale = a.pttl < stale_below, b.pttl < stale_below
  if a_stale ~= b_stale then return a_stale end
  if a.started_at ~= b.started_at then return a.started_at < b.started_at end
  return a.seat < b.seat
end
-- end shared

-- shared: ended_by
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
-- end shared

-- shared: is_damaged
-- Whether a reply says that the key holds another type than ours, which somebody wrote by hand.
local function is_damaged(reply)
  return type(reply) == 'table' and reply.err and string.find(tostring(reply.err), 'WRONGTYPE', 1, true) ~= nil
end
-- end shared

local function drop_damaged(key)
  if is_damaged(redis.pcall('HLEN', key)) then redis.call('DEL', key) end
end

if now > (tonumber(ARGV[6]) or now) then return {'late'} end

local live = {}
if keep < #KEYS - 3 then
  drop_damaged(KEYS[2])
  local done = operation ~= '' and ended_by(operation, 0) or {}
  if done[1] then return {now, done} end
  for i = 4, #KEYS do drop_damaged(KEYS[i]) end
  live = live_streams()
end
table.sort(live, eviction_order)
local freed = {}
for i = 1, #live - keep do
  redis.call('DEL', KEYS[live[i].seat + 3])
  if live[i].ref then record_ended(live[i].ref, reason, details(live[i], operation)) end
  freed[i] = {row(live[i]), reason}
end
-- Last: short of memory, what was deleted lets it through.
if limit ~= '' then
  drop_damaged(KEYS[1])
  redis.call('HSET', KEYS[1], 'limit', limit)
end
return {now, freed}
