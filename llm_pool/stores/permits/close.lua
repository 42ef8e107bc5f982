-- Settles or releases a permit, and takes note of what the provider said is left.
--
-- ARGV from 10: id, moment it was reserved, tokens to be counted for it in the end, requests likewise (0 or -1), what
-- of requests, tokens, input tokens and output tokens was not taken; from 17 readings.

local id, reserved_at, tokens, requests = ARGV[10], tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local unused = {
  requests = -requests,
  tokens = tonumber(ARGV[14]),
  input_tokens = tonumber(ARGV[15]),
  output_tokens = tonumber(ARGV[16]),
}

local was_open = close(id, requests, tokens)
if not was_open then
  -- It lapsed and was given back, and yet the call ended: what it took is to be counted.
  for _, window in ipairs(windows) do
    if window.takes_tokens then
      correct(window, tokens, reserved_at)
    end
  end
end

local told = read_told()
if was_open then
  for _, bound in ipairs(told) do
    if bound[READ_AT] < reserved_at then
      bound[LEFT] = bound[LEFT] + unused[bound[KIND]]
    end
  end
end
if #told > 0 or #ARGV > 16 then
  lower(told, 17)
  write_told(told)
  keep_for_now()
end
return was_open and 1 or 0
