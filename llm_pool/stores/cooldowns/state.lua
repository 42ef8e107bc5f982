-- What stands before each of the other scripts: the policy, the state of one deployment, and what may become of it.
-- KEYS: its state, its places in the ramp. All times are microseconds by the server's own clock.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local allowed_failures, first, longest, ramp =
  tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local DOUBLINGS = 6
local KEPT_SECONDS = 86400 * 2 -- longer than the longest cooling: who is forgotten would be open

local raw = redis.call('HMGET', KEYS[1], 'failures', 'ends_at', 'length', 'probe', 'probe_ends_at', 'ramp_at', 'last')
local state = {
  failures = tonumber(raw[1]) or 0,
  ends_at = tonumber(raw[2]) or 0, -- 0: none since a probe was answered
  length = tonumber(raw[3]) or 0,
  probe = raw[4] or '',
  probe_ends_at = tonumber(raw[5]) or 0,
  ramp_at = tonumber(raw[6]) or 0, -- 0: no ramp
  last = raw[7] or '', -- the latest failure that was counted, as a command may arrive twice
}
if state.ramp_at > 0 and now - state.ramp_at >= ramp then
  state.ramp_at, state.length = 0, 0
end

local function phase()
  if state.ramp_at > 0 then return 'ramping' end
  if state.ends_at == 0 then return 'open' end
  return now < state.ends_at and 'cooling' or 'half_open'
end

local function save()
  if state.failures == 0 and state.ends_at == 0 and state.ramp_at == 0 then
    redis.call('DEL', KEYS[1], KEYS[2])
    return
  end
  local function whole(number) return string.format('%.0f', number) end
  redis.call('HSET', KEYS[1], 'failures', whole(state.failures), 'ends_at', whole(state.ends_at),
    'length', whole(state.length), 'probe', state.probe, 'probe_ends_at', whole(state.probe_ends_at),
    'ramp_at', whole(state.ramp_at), 'last', state.last)
  redis.call('EXPIRE', KEYS[1], KEPT_SECONDS)
end

-- Whatever place a token held; true if it was the probe.
local function take_back(token)
  redis.call('ZREM', KEYS[2], token)
  if token == '' or token ~= state.probe then return false end
  state.probe = ''
  return true
end

-- A probe that is under way stays the only one until it ends.
local function cool_for(length)
  state.ends_at = math.max(state.ends_at, now + length)
  state.ramp_at = 0
  redis.call('DEL', KEYS[2])
end

-- Phase, failures, microseconds left of it, and what the script has to say besides.
local function tell(word, number)
  local current, left = phase(), 0
  if current == 'cooling' then left = state.ends_at - now end
  if current == 'ramping' then left = state.ramp_at + ramp - now end
  return {current, state.failures, left, word or '', number or 0}
end
