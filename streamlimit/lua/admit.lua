-- admit: start a stream of one user, or refuse it. The first rule that matches wins.
--
-- KEYS  1 user:{USER}   2 ended:{USER}   3 epoch:{TAG}   4… stream:{USER}:1 … stream:{USER}:MAX_LIMIT
-- ARGV  1 epoch        id of the epoch that the caller knows; '' accepts any
--       2 ref          REF of the new stream
--       3 sig          its SIG
--       4 ref_limit    the limit that REF carries
--       5 ttl          ms that the stream lives without a heartbeat
--       6 stale_below  ms; a stream with a lower PTTL is stale
--       7 override     limit set by a trusted caller, or ''
--       8 default      limit of a user without a record; '' refuses such a user
--       9 on_limit     'evict' to end other streams at the limit, or ''
--      10 take_over    REF of a stream whose seat is wanted (see nameless), or ''
--      11 device_id    or ''
--      12 device_name  or ''
--      13 content_id   or ''
--      14 request      hash of the Idempotency-Key, or ''
--      15 enforce      '1'; '' is shadow mode: beyond the limit a free seat is given all the same
--      16 dry_run      '1' to decide and write nothing, or ''
--      17 valid_until  Unix ms; later it does nothing: the caller has given up this attempt and made another, and what
--                      was acknowledged since must stand
--
-- Returns one of
--   {'epoch'}                 the epoch is not the caller's, its recovery too long, or this is late: run epoch.lua,
--                             then this again
--   {'limit', limit}          the limit is not the one in REF: mint a new REF with it, then this again
--   {'unknown_user'}
--   {'ended', reason, by, by_name}       this REF was admitted before and has ended since; see resume.lua
--   {'recovering', now, live, limit, recovering_until}
--   {'refused', now, live, limit, {stream…}}
--   {'admissible', now, live, limit}     only in a dry run
--   {'admitted', now, live, limit, stream, {{stream, reason}…}, sig, over}     over: 1 where shadow mode let it in;
--                             the same for a repetition of an admission that was made already
-- where stream = {seat, pttl, ref, started_at, device_id, device_name, content_id}, false for what is absent; times in ms.
--
-- Writes, once the decision is made: the seats that it frees, the new stream's seat with its TTL, and ended:{USER}.

local epoch, ref, sig, ref_limit, ttl, stale_below, override, default, on_limit, take_over = unpack(ARGV)
local device_id, device_name, request, enforce, dry_run = ARGV[11], ARGV[12], ARGV[14], ARGV[15], ARGV[16]
ttl, stale_below = tonumber(ttl), tonumber(stale_below)
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

-- shared: why_ended
-- What is told of an entry of ended:{USER}: the reason, and if it was another stream, its SEAT.REF and its device's name.
local function why_ended(entry)
  local by, by_name = string.match(entry, '^%S+\t(%d+%.[^\t]+)\t([^\t]*)')
  return {'ended', string.match(entry, '^%S+') or 'expired', by or false, by and by_name ~= '' and by_name or false}
end
-- end shared

-- shared: nameless
-- A hash that somebody wrote by hand may hold no REF, or none that a stream_ref could carry. The one in seat 3 is called
-- 'no-ref-in-seat-0003' instead.
local function nameless_seat(ref)
  return tonumber(string.match(ref, '^no%-ref%-in%-seat%-(%d%d%d%d)$'))
end

local function is_nameless(held)
  return not (held and string.find(held, '^' .. string.rep('[%w_-]', 19) .. '$'))
end
-- end shared

-- shared: whole_number
-- A hand-written limit: its whole part, or nil where it is no decimal number (tonumber alone would take 'nan' and '0x1F').
local function whole_number(text)
  return text and tonumber(string.match(text, '^%s*(-?%d+)%.?%d*%s*$'))
end
-- end shared

-- Another type is another epoch: epoch.lua makes a new one.
local stored = redis.pcall('HMGET', KEYS[3], 'id', 'recovering_until')
local recovering_until = tonumber(stored[2]) or 0
-- A recovery longer than a TTL began before the clock was set back; epoch.lua shortens it.
local late = now > (tonumber(ARGV[17]) or now)
if epoch ~= '' and (stored[1] ~= epoch or recovering_until > now + ttl or late) then return {'epoch'} end

-- 1. The limit.
local limit = tonumber(override) or whole_number(redis.call('HGET', KEYS[1], 'limit')) or tonumber(default)
if not limit then return {'unknown_user'} end
local seats = #KEYS - 3
limit = math.max(0, math.min(limit, seats))

-- 2. An admission already made. It lives a whole TTL from now on, as its player will count from this answer.
local live = live_streams()
local own, named
local nameless = take_over ~= '' and nameless_seat(take_over)
local free_seat = 1
for _, stream in ipairs(live) do
  if stream.ref == ref or request ~= '' and stream.request == request and stream.sig then
    if dry_run == '1' then return {'admissible', now, #live, limit} end
    redis.call('PEXPIRE', KEYS[stream.seat + 3], ttl)
    stream.pttl = ttl
    local over = enforce == '' and #live > limit and 1 or 0
    return {'admitted', now, #live, limit, row(stream), ended_by(stream.ref, stream.started_at), stream.sig, over}
  end
  if device_id ~= '' and stream.device_id == device_id then own = stream end
  if take_over ~= '' and stream.ref == take_over or stream.seat == nameless and is_nameless(stream.ref) then
    named = stream
  end
  if stream.seat == free_seat then free_seat = free_seat + 1 end
end
local ended = redis.call('HGET', KEYS[2], ref)
if ended then return why_ended(ended) end

-- 3 to 6. Whose seat it gets, and who else ends.
local victims = {}
if own then
  victims = {{own, 'replaced'}}
elseif named then
  victims = {{named, 'taken_over'}}
elseif #live < limit and enforce == '1' and now < recovering_until then
  return {'recovering', now, #live, limit, recovering_until}
end
if on_limit == 'evict' and limit > 0 then
  local others = {unpack(live)}
  table.sort(others, eviction_order)
  for _, stream in ipairs(others) do
    if #live - #victims < limit then break end
    if not victims[1] or stream ~= victims[1][1] then victims[#victims + 1] = {stream, 'evicted'} end
  end
end

-- 7. Refused: what is freed would not bring the user below the limit, so nobody is ended.
local over = #live - #victims >= limit
local seat = victims[1] and victims[1][1].seat or free_seat
if over and (enforce == '1' or seat > seats) then
  -- A server that takes no writes may be a replica, and its data of long ago: PERSIST changes nothing, but fails there.
  redis.call('PERSIST', KEYS[3])
  local streams = {}
  for i, stream in ipairs(live) do streams[i] = row(stream) end
  return {'refused', now, #live, limit, streams}
end
if dry_run == '1' then return {'admissible', now, #live, limit} end
if tonumber(ref_limit) ~= limit then return {'limit', limit} end

-- DEL comes first: under memory pressure it is allowed, and lets the writes after it through.
local freed = {}
for i, victim in ipairs(victims) do
  local stream, reason = unpack(victim)
  redis.call('DEL', KEYS[stream.seat + 3])
  if stream.ref then record_ended(stream.ref, reason, details(stream, seat .. '.' .. ref, device_name)) end
  freed[i] = {row(stream), reason}
end
local stream = {seat = seat, pttl = ttl, ref = ref, started_at = now}
local fields = {'ref', ref, 'sig', sig, 'started_at', string.format('%.0f', now)}
for i, name in ipairs({'device_id', 'device_name', 'content_id', 'request'}) do
  local value = ARGV[10 + i]
  stream[name] = value ~= '' and value
  if value ~= '' then
    table.insert(fields, name)
    table.insert(fields, value)
  end
end
redis.call('HSET', KEYS[seat + 3], unpack(fields))
redis.call('PEXPIRE', KEYS[seat + 3], ttl)
return {'admitted', now, #live - #victims + 1, limit, row(stream), freed, sig, over and 1 or 0}
