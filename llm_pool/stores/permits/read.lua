-- Returns what is used of each window that has a limit, in their order, and how many permits are open.

reap()
local used = {}
for _, window in ipairs(windows) do
  forget(window)
  used[#used + 1] = window.used
end
used[#used + 1] = redis.call('ZCARD', leases)
return used
