-- KEYS: leases, holds, one account's without its day. ARGV: seconds ahead. Gives used, spent, and the time.
local clock = read_clock(ARGV[1])
free_expired(KEYS[1], KEYS[2], clock)
local found = redis.call('HMGET', add_day(KEYS[3], clock), 'used', 'spent')
return {found[1] or '0', found[2] or '0', clock.seconds}
