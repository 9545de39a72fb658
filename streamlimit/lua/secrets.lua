-- secrets: report the fingerprints of the caller's secrets, and find out whether other processes use the same.
--
-- KEYS  1 epoch:{0}
-- ARGV  1 kept          ms; a secret that was not reported for so long is forgotten: no stream of it can be live
--       2… fingerprints of the caller's secrets
--
-- Returns {shared, OTHER…}: shared is 1 where the caller has a secret in common with those in use, or none is in use,
-- else 0; OTHER are the fingerprints in use that the caller does not have.
--
-- For example, processes that have A report A. During a rotation one that has B and A reports both, and from then on one
-- that has B alone shares it. One that has C alone is told 0, and is not remembered: it would make itself the rule.
--
-- Writes fields `secret:FINGERPRINT`, the time of the last report (Unix ms), each at most once in a tenth of `kept`, and
-- only where there is an epoch: a store that lost everything gets them after it was met.

local kept = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local own, reported, others, forgotten = {}, {}, {}, {}
for at = 2, #ARGV do own[ARGV[at]] = true end

local fields = redis.call('HGETALL', KEYS[1])
local has_epoch, shared = false, false
for at = 1, #fields, 2 do
  local fingerprint = string.match(fields[at], '^secret:(.+)$')
  local last = tonumber(fields[at + 1]) or 0
  if fields[at] == 'id' then
    has_epoch = true
  elseif fingerprint and last + kept <= now then
    forgotten[#forgotten + 1] = fields[at]
  elseif fingerprint and own[fingerprint] then
    shared = true
    reported[fingerprint] = last
  elseif fingerprint then
    others[#others + 1] = fingerprint
  end
end
shared = shared or #others == 0

if #forgotten > 0 then redis.call('HDEL', KEYS[1], unpack(forgotten)) end
if has_epoch and shared then
  for fingerprint in pairs(own) do
    if math.abs(now - (reported[fingerprint] or 0)) >= kept / 10 then
      redis.call('HSET', KEYS[1], 'secret:' .. fingerprint, string.format('%.0f', now))
    end
  end
end
return {shared and 1 or 0, unpack(others)}
