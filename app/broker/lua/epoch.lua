-- Head of the scripts that touch a room's history. KEYS: 1 meta, 2 stream.
-- Answers the epoch, the top offset and the writing primary's replication id. Without meta, or with meta that another
-- primary wrote (P3), a new epoch begins, and that always deletes the stream (P2).
local function position(trusted)
  local meta = redis.call('HMGET', KEYS[1], 'epoch', 'offset', 'primary')
  local primary = ''
  if not trusted then
    primary = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
  end
  if meta[1] and (trusted or meta[3] == primary) then
    return meta[1], tonumber(meta[2]), primary
  end
  redis.call('DEL', KEYS[2])
  local now = redis.call('TIME')
  return string.sub(redis.sha1hex(KEYS[1] .. primary .. now[1] .. '.' .. now[2]), 1, 12), 0, primary
end

-- Offsets beyond 1e14 must not turn into scientific notation.
local function written(epoch, offset, primary, ttl)
  local top = string.format('%.0f', offset)
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'offset', top, 'primary', primary)
  redis.call('PEXPIRE', KEYS[1], ttl)
  return epoch .. ':' .. top
end
