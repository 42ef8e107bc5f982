-- Stands before every script. Money is counted in whole pico-USD (1e-12) as decimal text: HINCRBY reckons exactly in
-- 64 bits, while Lua's own numbers would lose the last digits above 9,007 USD.

local function is_more(a, b)
  if a:sub(1, 1) == '-' then return false end
  if #a ~= #b then return #a > #b end
  return a > b
end

local function negate(amount)
  if amount == '0' then return amount end
  return '-' .. amount
end

local function read_clock(ahead_seconds)
  local time = redis.call('TIME')
  local seconds = tonumber(time[1]) + tonumber(ahead_seconds)
  return {
    seconds = seconds,
    ms = seconds * 1000 + math.floor(tonumber(time[2]) / 1000),
    day = string.format('%d', math.floor(seconds / 86400)),
  }
end

-- An account's key ends where its day goes; one that never resets has brought its own.
local function add_day(key, clock)
  if key:sub(-1) == ':' then return key .. clock.day end
  return key
end

-- Day 0 is that of what never resets: it may wait for weeks before it is asked for again.
local function keep(key, seconds)
  if key:sub(-2) == ':0' then seconds = seconds * 30 end
  redis.call('EXPIRE', key, seconds)
end

-- `leases` orders the holds by when they end; `holds` keeps each one's amount and accounts, or '' once it is settled.
local function free(holds, id)
  local record = redis.call('HGET', holds, id)
  if not record or record == '' then return end
  local hold = cjson.decode(record)
  for _, key in ipairs(hold.keys) do
    redis.call('HINCRBY', key, 'used', negate(hold.amount))
  end
end

local function free_expired(leases, holds, clock)
  local expired = redis.call('ZRANGE', leases, '-inf', clock.ms, 'BYSCORE', 'LIMIT', 0, 100)
  for _, id in ipairs(expired) do
    free(holds, id)
    redis.call('HDEL', holds, id)
    redis.call('ZREM', leases, id)
  end
end
