-- count: add to the number of admissions that one user asked for, and say how long to wait where they are too many.
--
-- KEYS  1 admissions:{USER}
-- ARGV  1 amount   how many were asked for since the last call
--       2 most     as many may be asked for
--       3 window   ms in which they are counted
--
-- Returns the ms after which they are forgotten where they are more than that, else 0.
--
-- Writes: the number, with a TTL of the window from the first on; deletes first what is no number.
--
-- It has no valid_until: an attempt that is late, or repeated, counts twice, which makes a user wait a little sooner and
-- changes nothing else.

local count = redis.pcall('INCRBY', KEYS[1], ARGV[1])
if type(count) == 'table' then
  -- Somebody overwrote it by hand with what is no number. It counts a minute: it begins anew.
  if not string.find(tostring(count.err), 'OOM', 1, true) then redis.call('DEL', KEYS[1]) end
  count = redis.call('INCRBY', KEYS[1], ARGV[1])
end
local pttl = redis.call('PTTL', KEYS[1])
-- Below 0 it is new, or an operator has set it by hand.
if pttl < 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  pttl = tonumber(ARGV[3])
end
return count > tonumber(ARGV[2]) and pttl or 0
