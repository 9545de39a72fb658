-- What is told of an entry of ended:{USER}: the reason, and if it was another stream, its SEAT.REF and its device's name.
local function why_ended(entry)
  local by, by_name = string.match(entry, '^%S+\t(%d+%.[^\t]+)\t([^\t]*)')
  return {'ended', string.match(entry, '^%S+') or 'expired', by or false, by and by_name ~= '' and by_name or false}
end
