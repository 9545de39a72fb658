-- resume: what became of a stream that its seat does not hold? Found elsewhere, ended, or lost by the store and brought back.
--
-- KEYS  1 user:{USER}   2 ended:{USER}   3 epoch:{TAG}   4… stream:{USER}:1 … stream:{USER}:MAX_LIMIT
-- ARGV  1 epoch        id of the epoch that the caller knows; '' accepts any
--       2 ref
--       3 sig
--       4 genuine      '1' where SIG is right for REF, else ''
--       5 seat         where the stream was last seen
--       6 minted       Unix ms in REF
--       7 ref_limit    the limit in REF, for a user without a record
--       8 ttl          ms
--       9 enforce      '1'; '' is shadow mode: any free seat will do
--      10 dry_run      '1' to answer and write nothing, or ''
--      11 valid_until  Unix ms; as in admit.lua
--
-- Returns one of
--   {'epoch'}          the epoch is not the caller's, its recovery too long, or this is late: run epoch.lua, then again
--   {'live', now, stream}
--   {'provisional', now, stream}     only in a dry run: a heartbeat would bring it back; pttl says for how long
--   {'ended', reason, by, by_name}      by: SEAT.REF of the stream that ended it, or false; by_name: its device's, or false
--   {'unknown'}        SIG is wrong and no live stream bears it: never issued
-- where stream = {seat, pttl, ref, started_at, device_id, device_name, content_id}, false for what is absent; times in ms.
--
-- Writes the TTL, the stream brought back, or in ended:{USER} why not: who was told so once is told so again.

local epoch, ref, sig, genuine, last_seat, minted, ref_limit, ttl, enforce, dry_run = unpack(ARGV)
last_seat, minted, ttl = tonumber(last_seat), tonumber(minted), tonumber(ttl)
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

-- shared: why_ended
-- What is told of an entry of ended:{USER}: the reason, and if it was another stream, its SEAT.REF and its device's name.
local function why_ended(entry)
  local by, by_name = string.match(entry, '^%S+\t(%d+%.[^\t]+)\t([^\t]*)')
  return {'ended', string.match(entry, '^%S+') or 'expired', by or false, by and by_name ~= '' and by_name or false}
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
local late = now > (tonumber(ARGV[11]) or now)
if epoch ~= '' and (stored[1] ~= epoch or recovering_until > now + ttl or late) then return {'epoch'} end

local live = live_streams()
local taken = {}
for _, stream in ipairs(live) do
  if stream.ref == ref and stream.sig == sig then
    if dry_run == '' then
      redis.call('PEXPIRE', KEYS[stream.seat + 3], ttl)
      stream.pttl = ttl
    end
    return {'live', now, row(stream)}
  end
  taken[stream.seat] = true
end
if genuine == '' then return {'unknown'} end

local ended = redis.call('HGET', KEYS[2], ref)
if ended then return why_ended(ended) end

-- The store lost it: everything (recovery), or the last writes before a failover (REF younger than a TTL; the clock that
-- minted it may be a second ahead of this one, but a REF from the future is no proof).
-- A full ended:{USER} may have dropped this very stream, if it is older than what is left there.
local young_until = minted - now < 1000 and math.min(minted, now) + ttl or 0
local lost_until = math.max(young_until, recovering_until)
local forgotten = false
if redis.call('HLEN', KEYS[2]) >= 64 then
  local _, oldest_at = oldest_ended()
  forgotten = minted <= oldest_at
end

local seats = #KEYS - 3
local limit = whole_number(redis.call('HGET', KEYS[1], 'limit')) or tonumber(ref_limit)
if enforce == '' then limit = seats end
if now < lost_until and not forgotten and #live < math.min(limit, seats) then
  local seat = last_seat
  if taken[seat] or seat < 1 or seat > seats then
    seat = 1
    while taken[seat] do seat = seat + 1 end
  end
  if dry_run == '1' then return {'provisional', now, {seat, lost_until - now, ref, minted, false, false, false}} end
  redis.call('HSET', KEYS[seat + 3], 'ref', ref, 'sig', sig, 'started_at', string.format('%.0f', minted))
  redis.call('PEXPIRE', KEYS[seat + 3], ttl)
  return {'live', now, {seat, ttl, ref, minted, false, false, false}}
end

-- A server that takes no writes may be a replica, and its data of long ago: PERSIST changes nothing, but fails there.
redis.call('PERSIST', KEYS[3])

-- What would be back, if its seat had not been given away, has not expired.
local reason = now < lost_until and not forgotten and 'limit_reached' or 'expired'
if dry_run == '' then record_ended(ref, reason) end
return {'ended', reason, false, false}
