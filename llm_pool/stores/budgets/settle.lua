-- KEYS: leases, holds, then each account's with its day. ARGV: seconds ahead, id, spent, how long a settled hold is
-- remembered in ms, how long days are kept in s, then each account's alert. Gives pairs of account and spent, for those
-- whose alert is due.
local clock = read_clock(ARGV[1])
local id, spent = ARGV[2], ARGV[3]
if redis.call('HGET', KEYS[2], id) == '' then return {} end
free(KEYS[2], id)
redis.call('HSET', KEYS[2], id, '')
redis.call('ZADD', KEYS[1], clock.ms + tonumber(ARGV[4]), id)

local due = {}
for i = 3, #KEYS do
  local key = KEYS[i]
  redis.call('HINCRBY', key, 'used', spent)
  redis.call('HINCRBY', key, 'spent', spent)
  keep(key, ARGV[5])
  local total = redis.call('HGET', key, 'spent')
  if not is_more(ARGV[i + 3], total) and redis.call('HSETNX', key, 'told', '1') == 1 then
    due[#due + 1] = i - 2
    due[#due + 1] = total
  end
end
return due
