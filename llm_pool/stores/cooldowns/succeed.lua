-- ARGV, after the policy's four: token.
local current, is_probe = phase(), take_back(ARGV[5])

if current == 'half_open' and is_probe then
  state.failures, state.ends_at, state.ramp_at = 0, 0, ramp > 0 and now or 0
elseif current == 'open' or current == 'ramping' then
  state.failures = 0
end
save()
return tell()
