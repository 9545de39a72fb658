-- Stale streams first, then the oldest; of equals the lower seat.
local function eviction_order(a, b)
  local a_stale, b_stale = a.pttl < stale_below, b.pttl < stale_below
  if a_stale ~= b_stale then return a_stale end
  if a.started_at ~= b.started_at then return a.started_at < b.started_at end
  return a.seat < b.seat
end
