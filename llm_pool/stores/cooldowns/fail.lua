-- ARGV, after the policy's four: token, how long one failure suffices for or -1, name of this failure.
-- Says `began` where it was not cooling before.
local named, name = tonumber(ARGV[6]), ARGV[7]
if state.last == name then return tell() end

local current, length = phase(), -1
local is_probe = take_back(ARGV[5]) and current == 'half_open'
state.failures, state.last = state.failures + 1, name

if is_probe then
  state.length = math.min(2 * state.length, longest)
  length = math.max(state.length, named)
elseif named >= 0 then
  state.length = math.max(state.length, first)
  length = named
elseif (current == 'open' or current == 'ramping') and state.failures >= allowed_failures then
  state.length = math.max(first, math.min(2 * state.length, longest))
  length = state.length
end
if length >= 0 then cool_for(length) end
save()
if length >= 0 and current ~= 'cooling' then return tell('began') end
return tell()
