-- A part of a room's history and its newest position, both of one moment. KEYS: 1 meta, 2 stream.
-- ARGV: 1 meta ms, 2 "1" where a restarted primary is trusted, 3, 4 epoch and offset of the newest position that the
-- node has seen, 5 "1" where it asks what is there now, 6 "1" newest first, 7 offset to begin after ("": at the end),
-- 8 most publications, 9 most bytes of envelopes (0: no bound).
-- Answers "epoch:offset", 1 where the bytes ended it, 1 where publications were missing in between (then a new epoch has
-- begun, R2), the envelope asked for, then in turn each offset and envelope. Ids that no node writes are left out (`0`
-- as the highest is `0-*`).
local epoch, top, primary = position(ARGV[2] == '1', ARGV[3], ARGV[4])
local backwards, since = ARGV[6] == '1', tonumber(ARGV[7])
local limit, left = tonumber(ARGV[8]), tonumber(ARGV[9])
if left == 0 then
  left = math.huge
end
local command, from, to, step = 'XRANGE', since and '(0-' .. ARGV[7] or '0-1', '0', 1
-- The offset that comes next, where it is known.
local awaited = since and since + 1
if backwards then
  command, from, to, step = 'XREVRANGE', since and '(0-' .. number(math.max(since, 1)) or '0', '0-1', -1
  awaited = math.min(since and since - 1 or top, top)
end

-- The first four places are filled at the end.
local answer = {'', 0, 0, false}
local cut, hole, ended = false, false, false
-- Where the first one is not the one awaited, those before it may have been trimmed: then nothing older is there either.
local function is_hole(before)
  return #answer > 4 or backwards or #redis.call('XRANGE', KEYS[2], '0-1', before, 'COUNT', 1) > 0
end

while limit > 0 and not (cut or hole or ended) do
  -- In small portions: what the bytes will leave out is hardly copied.
  local portion = math.min(limit, 25)
  local entries = redis.call(command, KEYS[2], from, to, 'COUNT', portion)
  for _, entry in ipairs(entries) do
    local offset, envelope = string.sub(entry[1], 3), entry[2][2]
    hole = awaited and tonumber(offset) ~= awaited and is_hole('(' .. entry[1])
    left = left - #envelope
    cut = left < 0 and #answer > 4
    if hole or cut then
      break
    end
    answer[#answer + 1] = offset
    answer[#answer + 1] = envelope
    awaited = offset + step
    from = '(' .. entry[1]
  end
  ended = #entries < portion
  limit = limit - portion
end
if ended and not (backwards or cut) and awaited and awaited <= top then
  hole = hole or is_hole('0')
end

if hole then
  epoch, top, answer, cut = anew(primary), 0, {'', 0, 1, false}, false
elseif ARGV[5] == '1' and epoch == ARGV[3] then
  local entries = redis.call('XRANGE', KEYS[2], '0-' .. ARGV[4], '0-' .. ARGV[4])
  answer[4] = entries[1] and entries[1][2][2] or false
end
answer[1] = written(epoch, top, primary, ARGV[1])
answer[2] = cut and 1 or 0
return answer
