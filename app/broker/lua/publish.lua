-- One atomic publish (P2). KEYS: 1 meta, 2 stream, 3 idempotency key.
-- ARGV: 1 PUBLISH or SPUBLISH, 2 channel, 3 envelope, 4 digest of the data, 5 ms to keep the key,
-- 6 history size (0: none), 7 stream ms, 8 meta ms, 9 "1" where a restarted primary is trusted, 10, 11 epoch and offset
-- of the newest position that the node has seen.
-- Answers "epoch:offset", or nil where the key was used with other data. What can fail comes before what cannot be
-- taken back: XADD first, PUBLISH last.
local kept = redis.call('GET', KEYS[3])
if kept then
  local digest, result = string.match(kept, '^(%S*) (.*)$')
  if digest ~= ARGV[4] then
    return false
  end
  return result
end
if not redis.acl_check_cmd(ARGV[1], ARGV[2], '') then
  return redis.error_reply('NOPERM the user may not publish on this channel')
end

local function append(offset)
  return redis.pcall('XADD', KEYS[2], 'MAXLEN', '=', ARGV[6], '0-' .. number(offset), 'envelope', ARGV[3])
end

local result = ':0'
if ARGV[6] ~= '0' then
  local epoch, top, primary = position(ARGV[9] == '1', ARGV[10], ARGV[11])
  local added = append(top + 1)
  if added.err and string.find(added.err, 'equal or smaller', 1, true) then
    -- The stream is ahead of its meta: no publication would ever be taken again.
    epoch, top = anew(primary), 0
    added = append(1)
  end
  if added.err then
    return added
  end
  redis.call('PEXPIRE', KEYS[2], ARGV[7])
  result = written(epoch, top + 1, primary, ARGV[8])
end
redis.call('SET', KEYS[3], ARGV[4] .. ' ' .. result, 'PX', ARGV[5])
redis.call(ARGV[1], ARGV[2], result .. ':' .. ARGV[3])
return result
