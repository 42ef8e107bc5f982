-- ARGV, after the policy's four: token, lease. Says on which way, or for how long not.
local token, lease = ARGV[5], tonumber(ARGV[6])
local current = phase()

if current == 'open' then return tell('open') end
if current == 'cooling' then return tell('refused', state.ends_at - now) end

if current == 'half_open' then
  if state.probe ~= '' and state.probe ~= token and now < state.probe_ends_at then
    return tell('refused', math.min(state.probe_ends_at - now, first))
  end
  state.probe, state.probe_ends_at = token, now + lease
  save()
  return tell('probe')
end

redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now))
local step = math.floor((now - state.ramp_at) * DOUBLINGS / ramp)
local has_place = redis.call('ZSCORE', KEYS[2], token)
if not has_place and redis.call('ZCARD', KEYS[2]) >= 2 ^ step then
  return tell('refused', math.ceil(state.ramp_at + (step + 1) * ramp / DOUBLINGS - now))
end
redis.call('ZADD', KEYS[2], string.format('%.0f', now + lease), token)
redis.call('EXPIRE', KEYS[2], KEPT_SECONDS)
return tell('ramp')
