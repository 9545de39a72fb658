-- heartbeat: keep a stream live for one more TTL. The path of 99 of 100 requests, so it reads and writes one key.
--
-- KEYS  1 stream:{USER}:SEAT
-- ARGV  1 ref
--       2 sig
--       3 ttl  ms
--
-- Returns the stream's new end (Unix ms), or 0 where this seat does not hold it (then see resume.lua).
--
-- Writes the TTL; nothing where the last heartbeat is less than a second old (of a TTL under 20 s: a twentieth of it), so
-- that with heartbeats at 0.95 of a third of the TTL two may still be lost.

local ref, sig, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])

local fields = redis.call('HMGET', KEYS[1], 'ref', 'sig')
if fields[1] ~= ref or fields[2] ~= sig then return 0 end

local pttl = redis.call('PTTL', KEYS[1])
if pttl < ttl - math.min(1000, ttl / 20) or pttl > ttl then
  redis.call('PEXPIRE', KEYS[1], ttl)
  pttl = ttl
end
local time = redis.call('TIME')
return time[1] * 1000 + math.floor(time[2] / 1000) + pttl
