-- A hash that somebody wrote by hand may hold no REF, or none that a stream_ref could carry. The one in seat 3 is called
-- 'no-ref-in-seat-0003' instead.
local function nameless_seat(ref)
  return tonumber(string.match(ref, '^no%-ref%-in%-seat%-(%d%d%d%d)$'))
end

local function is_nameless(held)
  return not (held and string.find(held, '^' .. string.rep('[%w_-]', 19) .. '$'))
end
