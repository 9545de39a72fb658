-- epoch: meet the store, and find out whether it lost data since the caller last saw it. Loss opens recovery for one TTL,
-- in which streams that run resume and new admissions wait.
--
-- KEYS  1 epoch:{TAG}
-- ARGV  1 known   id of the epoch that the caller knows, or '' at its first meeting
--       2 fresh   id for a new epoch, if there is none
--       3 ttl     ms, the stream TTL
--       4 outage  '1' where the store was out of the caller's reach for so long that streams may have expired, else '';
--                 ignored where there is no epoch and none was known: a store that nobody used lost nothing
--
-- Returns {id, now, recovering_until}; times in Unix ms, recovering_until is 0 or past where there is no recovery. Behind
-- them stands 1 where the key was no hash, so that somebody overwrote it by hand, which counts as a loss.
--
-- Missing though one was known: the data is lost, and recovery starts now. Another than the known one: somebody else saw
-- the loss, and recovery ends one TTL after that epoch began, whoever wrote it, even if it was written by a process that
-- knew of no loss. Missing and none known: a first start, nobody waits.
--
-- No recovery is longer than one TTL from now, even if the clock was set back since it began.
--
-- Writes the epoch where it is new or its recovery changes. PERSIST changes nothing, but fails on a server that
-- takes no writes.
--
-- It has no valid_until, since it tells the clock by which that is counted. Late, it can only open a recovery again: some
-- admissions wait without need, and no limit is passed.

-- shared: is_damaged
-- Whether a reply says that the key holds another type than ours, which somebody wrote by hand.
local function is_damaged(reply)
  return type(reply) == 'table' and reply.err and string.find(tostring(reply.err), 'WRONGTYPE', 1, true) ~= nil
end
-- end shared

local known, fresh, ttl, outage = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

redis.call('PERSIST', KEYS[1])
local stored = redis.pcall('HMGET', KEYS[1], 'id', 'since', 'recovering_until')
local was_damaged = is_damaged(stored)
if was_damaged then
  redis.call('DEL', KEYS[1])
  stored = {}
elseif stored.err then
  return stored
end
local id, since, recovering_until = stored[1], tonumber(stored[2]) or now, tonumber(stored[3]) or 0
local stored_until = recovering_until
if known ~= '' and known ~= id then recovering_until = math.max(recovering_until, since + ttl) end
if was_damaged or outage == '1' and (id or known ~= '') then recovering_until = math.max(recovering_until, now + ttl) end
recovering_until = math.min(recovering_until, now + ttl)

if not id or recovering_until ~= stored_until and math.max(recovering_until, stored_until) > now then
  id = id or fresh
  redis.call('HSET', KEYS[1], 'id', id, 'since', string.format('%.0f', since),
    'recovering_until', string.format('%.0f', recovering_until))
end
return {id, now, recovering_until, was_damaged and 1 or nil}
