-- Keeps no room any more for who waited and gave up.
--
-- ARGV from 10: id.

local packed = redis.call('HGET', counts, 'claim')
if packed and cmsgpack.unpack(packed)[1] == ARGV[10] then
  redis.call('HDEL', counts, 'claim')
end
return 1
