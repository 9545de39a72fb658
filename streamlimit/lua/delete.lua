-- delete: forget a user's record. Live streams go on.
--
-- KEYS  1 user:{USER}
-- ARGV  1 valid_until  Unix ms; as in admit.lua; absent by hand
--
-- Returns 1 where there was one, else 0; or {'late'}: nothing was done, and nothing will be.
--
-- Writes: deletes the key.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now > (tonumber(ARGV[1]) or now) then return {'late'} end
return redis.call('DEL', KEYS[1])
