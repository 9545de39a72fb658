-- release: end one stream, whoever asks (the player releases its own, an operator or back end terminates one).
--
-- KEYS  1 user:{USER}   2 ended:{USER}   3 epoch:{TAG}   4… stream:{USER}:1 … stream:{USER}:MAX_LIMIT
-- ARGV  1 ref        see nameless
--       2 sig        SIG of the whole stream id; '' for a caller who may end it by its REF alone
--       3 genuine    '1' where SIG is right for REF, else ''
--       4 reason     'released' or 'terminated'
--       5 keep_live  '1' to leave a live stream alone and only bar an admission that may still arrive, else ''
--
-- Returns 1 where a live stream was ended, else 0.
--
-- Writes: deletes the seat and records the end in ended:{USER}; with a genuine SIG it records the end of a missing
-- stream too, so that neither a late admission nor a recovery brings it back.
--
-- It has no valid_until: it ends the one stream that REF names, which never comes back, so a late run finds nothing left
-- to do; and what undoes an admission has to come late.

local ref, sig, genuine, reason, keep_live = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

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

local nameless = nameless_seat(ref)

for seat = 1, #KEYS - 3 do
  -- A key of another type, made by hand, must not keep the user's other streams from ending.
  local fields = redis.pcall('HMGET', KEYS[seat + 3], 'ref', 'sig')
  if fields[1] == ref or seat == nameless and is_nameless(fields[1]) then
    if keep_live == '1' or sig ~= '' and fields[2] ~= sig and genuine == '' then return 0 end
    if redis.call('DEL', KEYS[seat + 3]) == 0 then return 0 end
    record_ended(ref, reason)
    return 1
  end
end

if genuine == '1' and redis.call('HEXISTS', KEYS[2], ref) == 0 then record_ended(ref, reason) end
return 0
