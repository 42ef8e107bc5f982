-- Takes note of what the provider said is left. ARGV from 10: readings.

local told = read_told()
lower(told, 10)
write_told(told)
keep_for_now()
