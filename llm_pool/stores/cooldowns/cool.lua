-- ARGV, after the policy's four: how long.
state.length = math.max(state.length, first)
cool_for(tonumber(ARGV[5]))
save()
return tell()
