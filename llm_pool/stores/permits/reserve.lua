-- Takes a permit from all cells, or from none.
--
-- ARGV from 10: id, tokens, prompt tokens, completion tokens, milliseconds waited (-1: asks only once), lease,
-- life of a claim, a wait nobody can know. Returns {1, moment}, or {0, cell, milliseconds to wait, may come sooner}.

local id, tokens = ARGV[10], tonumber(ARGV[11])
local needs = {
  requests = 1, tokens = tokens, input_tokens = tonumber(ARGV[12]), output_tokens = tonumber(ARGV[13]),
}
local waited, lease = tonumber(ARGV[14]), tonumber(ARGV[15])
local claim_life, unknown_wait = tonumber(ARGV[16]), tonumber(ARGV[17])
local CLAIM_ID, CLAIM_TOKENS, CLAIM_SINCE, CLAIM_ENDS_AT = 1, 2, 3, 4

local holding = redis.call('HGET', held, id)
if holding then
  return {1, cmsgpack.unpack(holding)[1]}
end

reap()
for _, window in ipairs(windows) do
  forget(window)
end
local told = read_told()

local packed = redis.call('HGET', counts, 'claim')
local claim = packed and cmsgpack.unpack(packed)
if claim and claim[CLAIM_ENDS_AT] <= now then
  claim = nil
end
local since = now - math.max(0, waited)
-- Room is kept for who has waited longest.
local ahead = claim and claim[CLAIM_ID] ~= id and claim[CLAIM_SINCE] < since and claim
local ahead_tokens, ahead_requests = ahead and ahead[CLAIM_TOKENS] or 0, ahead and 1 or 0

local short, longest, may_come_sooner = nil, -1, 0
local function lack(cell, wait, is_unsure)
  wait = is_unsure and math.min(wait, unknown_wait) or wait
  if wait > longest then
    short, longest, may_come_sooner = cell, wait, is_unsure and 1 or 0
  end
end

for _, window in ipairs(windows) do
  local count = window.takes_tokens and tokens or 1
  local free = window.limit - window.used
  local excess = count + (window.takes_tokens and ahead_tokens or ahead_requests) - free
  if excess > 0 then
    local is_held = window.takes_tokens and number_at('held') >= excess
    lack(window.name, find_wait(window, excess), count <= free or is_held)
  end
end
if places >= 0 and redis.call('ZCARD', leases) + 1 + ahead_requests > places then
  lack('in_flight', unknown_wait, true)
end
for _, bound in ipairs(told) do
  local lacking = needs[bound[KIND]] - bound[LEFT]
  if lacking > 0 then
    local until_end = bound[ENDS_AT] - now
    local is_refilled = bound[REFILL] > 0 and (bound[CEILING] < 0 or needs[bound[KIND]] <= bound[CEILING])
    lack('told_' .. bound[KIND], is_refilled and math.min(until_end, math.ceil(lacking / bound[REFILL])) or until_end)
  end
end

if short then
  if waited >= 0 and (not claim or claim[CLAIM_ID] == id or since < claim[CLAIM_SINCE]) then
    redis.call('HSET', counts, 'claim', cmsgpack.pack({id, tokens, since, now + claim_life}))
    redis.call('PEXPIRE', counts, KEPT)
  end
  return {0, short, longest, may_come_sooner}
end

for _, window in ipairs(windows) do
  local count = window.takes_tokens and tokens or 1
  redis.call('HINCRBY', counts, window.name .. ':' .. math.floor(now / window.part), count)
  redis.call('HINCRBY', counts, window.name, count)
end
for _, bound in ipairs(told) do
  bound[LEFT] = bound[LEFT] - needs[bound[KIND]]
end
if #told > 0 then
  write_told(told)
end
if claim and claim[CLAIM_ID] == id then
  redis.call('HDEL', counts, 'claim')
end
redis.call('HINCRBY', counts, 'held', tokens)
redis.call('HSET', held, id, cmsgpack.pack({now, tokens}))
redis.call('ZADD', leases, now + lease, id)
keep_for_now()
return {1, now}
