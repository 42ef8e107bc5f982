-- KEYS: leases, holds, then each account's without its day. ARGV: seconds ahead, id, amount, lease in ms, how long days
-- are kept in s, then each account's limit. Gives which account is full, or 0, and the time.
local clock = read_clock(ARGV[1])
local id, amount = ARGV[2], ARGV[3]
free_expired(KEYS[1], KEYS[2], clock)
-- Sent again by a client whose connection died under the first.
if redis.call('HEXISTS', KEYS[2], id) == 1 then return {0, clock.seconds} end

local keys = {}
for i = 3, #KEYS do
  local key = add_day(KEYS[i], clock)
  keys[#keys + 1] = key
  redis.call('HINCRBY', key, 'used', amount)
  keep(key, ARGV[5])
  if is_more(redis.call('HGET', key, 'used'), ARGV[i + 3]) then
    for _, taken in ipairs(keys) do redis.call('HINCRBY', taken, 'used', negate(amount)) end
    return {i - 2, clock.seconds}
  end
end
redis.call('HSET', KEYS[2], id, cjson.encode({amount = amount, keys = keys}))
redis.call('ZADD', KEYS[1], clock.ms + tonumber(ARGV[4]), id)
return {0, clock.seconds}
