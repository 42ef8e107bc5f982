-- What every script here begins with. Put before each of them when they are loaded.
--
-- A deployment has three keys: a hash of counts, a sorted set of leases (permit id -> moment it lapses) and a hash of
-- what each open permit holds. Moments are milliseconds by the server's clock. Numbers with a fraction are only ever
-- written packed: as text, Lua would cut them to 14 digits.

local counts, leases, held = KEYS[1], KEYS[2], KEYS[3]

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- Longer than anything that is counted lasts.
local KEPT = 26 * 3600 * 1000

-- The sliding windows that have a limit. Counts stand by part of the window in `NAME:PART`, their sum in `NAME`, the
-- oldest part that is in the sum in `NAME@`.
local windows = {}

local function add_window(name, limit, part, span, takes_tokens)
  limit = tonumber(limit)
  if limit >= 0 then
    windows[#windows + 1] = {name = name, limit = limit, part = part, span = span, takes_tokens = takes_tokens}
  end
end

local minute_part, minute_span = tonumber(ARGV[1]), tonumber(ARGV[2])
local day_part, day_span = tonumber(ARGV[3]), tonumber(ARGV[4])
add_window('requests_per_minute', ARGV[5], minute_part, minute_span, false)
add_window('tokens_per_minute', ARGV[6], minute_part, minute_span, true)
add_window('requests_per_day', ARGV[7], day_part, day_span, false)
add_window('tokens_per_day', ARGV[8], day_part, day_span, true)
local places = tonumber(ARGV[9])

local function number_at(field)
  return tonumber(redis.call('HGET', counts, field) or 0)
end

local function list_parts(window, first, last)
  local fields = {}
  for part = first, last do
    fields[#fields + 1] = window.name .. ':' .. part
  end
  return fields
end

-- Drops the parts that have left the window since somebody last looked. Nothing is counted without looking first, so
-- none stands further behind the oldest than the window was long then.
local function forget(window)
  local oldest = math.floor((now - window.span) / window.part)
  local known = redis.call('HMGET', counts, window.name, window.name .. '@')
  local used, from = tonumber(known[1] or 0), tonumber(known[2] or oldest)
  if from < oldest then
    local last = math.min(oldest - 1, from + math.ceil(window.span / window.part))
    local fields = list_parts(window, from, last)
    for _, count in ipairs(redis.call('HMGET', counts, unpack(fields))) do
      used = used - (count or 0)
    end
    redis.call('HDEL', counts, unpack(fields))
  end
  if from < oldest or not known[2] then
    redis.call('HSET', counts, window.name, used, window.name .. '@', oldest)
  end
  window.used, window.oldest = used, math.max(from, oldest)
end

-- Adds to what was counted at that moment, unless it has left the window.
local function correct(window, count, counted_at)
  local part = math.floor(counted_at / window.part)
  local oldest = redis.call('HGET', counts, window.name .. '@')
  if count ~= 0 and oldest and part >= tonumber(oldest) then
    redis.call('HINCRBY', counts, window.name .. ':' .. part, count)
    redis.call('HINCRBY', counts, window.name, count)
  end
end

-- Milliseconds until so much has left the window; if there is never so much, until all has. Parts before the first that
-- was counted in are never looked at again: most of a window is empty after a burst.
local function find_wait(window, excess)
  local last, left_at, first_counted = math.floor(now / window.part), now, nil
  for start = window.oldest, last, 16 do
    local parts = redis.call('HMGET', counts, unpack(list_parts(window, start, math.min(start + 15, last))))
    for index, count in ipairs(parts) do
      if count then
        first_counted = first_counted or start + index - 1
        left_at = (start + index) * window.part + window.span
        excess = excess - count
      end
      if excess <= 0 then
        break
      end
    end
    if excess <= 0 then
      break
    end
  end
  if first_counted and first_counted > window.oldest then
    redis.call('HSET', counts, window.name .. '@', first_counted)
  end
  return math.max(0, left_at - now) + 1
end

-- Ends a permit, and counts so many requests and tokens more or fewer than it reserved. False if it had ended before.
local function close(id, requests, tokens)
  local holding = redis.call('HGET', held, id)
  if not holding then
    return false
  end
  local reserved_at, reserved_tokens = unpack(cmsgpack.unpack(holding))
  redis.call('HDEL', held, id)
  redis.call('ZREM', leases, id)
  redis.call('HINCRBY', counts, 'held', -reserved_tokens)
  for _, window in ipairs(windows) do
    correct(window, window.takes_tokens and tokens - reserved_tokens or requests, reserved_at)
  end
  return true
end

-- Gives back what workers hold that have died.
local function reap()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, 100)) do
    close(id, 0, 0)
  end
end

-- What the provider told: a list of {kind, period, left, counted_at, ceiling, refill, read_at, ends_at}. The refill is
-- for a millisecond; a ceiling below zero is none.
local KIND, PERIOD, LEFT, COUNTED_AT, CEILING, REFILL, READ_AT, ENDS_AT = 1, 2, 3, 4, 5, 6, 7, 8

local function read_told()
  local packed, bounds = redis.call('HGET', counts, 'told'), {}
  for _, bound in ipairs(packed and cmsgpack.unpack(packed) or {}) do
    if bound[ENDS_AT] > now then
      local left = bound[LEFT] + bound[REFILL] * (now - bound[COUNTED_AT])
      bound[LEFT] = bound[CEILING] < 0 and left or math.min(left, bound[CEILING])
      bound[COUNTED_AT] = now
      bounds[#bounds + 1] = bound
    end
  end
  return bounds
end

local function write_told(bounds)
  if #bounds > 0 then
    redis.call('HSET', counts, 'told', cmsgpack.pack(bounds))
  else
    redis.call('HDEL', counts, 'told')
  end
end

-- Readings are six arguments each: kind, period, left, ceiling, refill, milliseconds until the reset. A reading that
-- leaves more than is known to be left is not believed: it may be older than what was taken.
local function lower(bounds, from)
  for index = from, #ARGV, 6 do
    local kind, period, left = ARGV[index], ARGV[index + 1], tonumber(ARGV[index + 2])
    local known
    for place, bound in ipairs(bounds) do
      if bound[KIND] == kind and bound[PERIOD] == period then
        known = place
      end
    end
    if not known or left < bounds[known][LEFT] then
      local ends_at = now + tonumber(ARGV[index + 5])
      bounds[known or #bounds + 1] =
        {kind, period, left, now, tonumber(ARGV[index + 3]), tonumber(ARGV[index + 4]), now, ends_at}
    end
  end
end

local function keep_for_now()
  redis.call('PEXPIRE', counts, KEPT)
  redis.call('PEXPIRE', leases, KEPT)
  redis.call('PEXPIRE', held, KEPT)
end
