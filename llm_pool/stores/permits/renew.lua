-- Keeps up the leases of a living process, and counts how many use the deployment.
--
-- KEYS[4] holds those processes. ARGV from 10: name of the process, lease, then ids of its open permits.

local process, lapses_at = ARGV[10], now + tonumber(ARGV[11])
for index = 12, #ARGV do
  redis.call('ZADD', leases, 'XX', lapses_at, ARGV[index])
end
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now)
redis.call('ZADD', KEYS[4], lapses_at, process)
redis.call('PEXPIRE', KEYS[4], KEPT)
return redis.call('ZCARD', KEYS[4])
