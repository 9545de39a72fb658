-- heartbeat: keep streams live for one more TTL. The path of 99 of 100 requests, so it looks at one key a stream. All
-- heartbeats that wait at one moment are carried out in one run; on a Cluster, whose scripts see one user only, each alone.
--
-- KEYS  1…  stream:{USER}:SEAT of each
-- ARGV  1   ttl  ms
--       2…  ref, sig of each, in the order of KEYS
--
-- Returns of each the stream's new end (Unix ms), or 0 where this seat does not hold it (then see resume.lua).
--
-- Writes the TTL; nothing where the last heartbeat is less than a second old (of a TTL under 20 s: a twentieth of it), so
-- that with heartbeats at 0.95 of a third of the TTL two may still be lost.
--
-- It has no valid_until: late, it only keeps a stream that is still live, and by no more than it is late.

local ttl = tonumber(ARGV[1])
local fresh = ttl - math.min(1000, ttl / 20)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local ends = {}
for i, key in ipairs(KEYS) do
  -- A key of a wrong type, made by hand, must not fail the others: resume.lua tells its user.
  local fields = redis.pcall('HMGET', key, 'ref', 'sig')
  if fields[1] == ARGV[2 * i] and fields[2] == ARGV[2 * i + 1] then
    local pttl = redis.call('PTTL', key)
    if pttl < fresh or pttl > ttl then
      redis.call('PEXPIRE', key, ttl)
      pttl = ttl
    end
    ends[i] = now + pttl
  else
    ends[i] = 0
  end
end
return ends
