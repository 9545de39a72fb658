-- A hand-written limit: its whole part, or nil where it is no decimal number (tonumber alone would take 'nan' and '0x1F').
local function whole_number(text)
  return text and tonumber(string.match(text, '^%s*(-?%d+)%.?%d*%s*$'))
end
