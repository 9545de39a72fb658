-- delete: forget a user's record. Live streams go on.
--
-- KEYS  1 user:{USER}
-- ARGV  none
--
-- Returns 1 where there was one, else 0.
--
-- Writes: deletes the key.

return redis.call('DEL', KEYS[1])
