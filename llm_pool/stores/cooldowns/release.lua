-- ARGV, after the policy's four: token.
if take_back(ARGV[5]) then save() end
return tell()
