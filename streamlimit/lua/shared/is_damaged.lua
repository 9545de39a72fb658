-- Whether a reply says that the key holds another type than ours, which somebody wrote by hand.
local function is_damaged(reply)
  return type(reply) == 'table' and reply.err and string.find(tostring(reply.err), 'WRONGTYPE', 1, true) ~= nil
end
