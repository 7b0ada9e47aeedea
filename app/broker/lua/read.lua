-- A part of a room's history and its newest position, both of one moment. KEYS: 1 meta, 2 stream.
-- ARGV: 1 meta ms, 2 "1" where a restarted primary is trusted, 3 XRANGE or XREVRANGE, 4 first id, 5 last id,
-- 6 most publications, 7 most bytes of envelopes (0: no bound).
-- Answers "epoch:offset", 1 where the bytes ended it, then in turn each offset and envelope.
local epoch, top, primary = position(ARGV[2] == '1')
local answer, cut = {'', 0}, false
local from, limit, left = ARGV[4], tonumber(ARGV[6]), tonumber(ARGV[7])
if left == 0 then
  left = math.huge
end
while limit > 0 and not cut do
  -- In small portions: what the bytes will leave out is hardly copied.
  local entries = redis.call(ARGV[3], KEYS[2], from, ARGV[5], 'COUNT', math.min(limit, 25))
  for _, entry in ipairs(entries) do
    local envelope = entry[2][2]
    left = left - #envelope
    cut = left < 0 and #answer > 2
    if cut then
      break
    end
    answer[#answer + 1] = string.sub(entry[1], 3)
    answer[#answer + 1] = envelope
    from = '(' .. entry[1]
  end
  limit = #entries < 25 and 0 or limit - 25
end
answer[1] = written(epoch, top, primary, ARGV[1])
answer[2] = cut and 1 or 0
return answer
