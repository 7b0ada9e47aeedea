-- Head of the scripts that touch a room's history. KEYS: 1 meta, 2 stream.
-- A new epoch, without what the stream held (P2).
local function anew(primary)
  redis.call('DEL', KEYS[2])
  local now = redis.call('TIME')
  return string.sub(redis.sha1hex(KEYS[1] .. primary .. now[1] .. '.' .. now[2]), 1, 12)
end

-- Answers the epoch, the top offset and the writing primary's replication id. A new epoch begins without meta, with meta
-- that another primary wrote, and where the top is below one that the caller has seen: then data went back (P3).
local function position(trusted, seen_epoch, seen_offset)
  local meta = redis.call('HMGET', KEYS[1], 'epoch', 'offset', 'primary')
  local primary = ''
  if not trusted then
    primary = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
  end
  local epoch, top = meta[1], tonumber(meta[2])
  if epoch and top and (trusted or meta[3] == primary) and (epoch ~= seen_epoch or top >= tonumber(seen_offset)) then
    return epoch, top, primary
  end
  return anew(primary), 0, primary
end

local function number(offset)
  return string.format('%.0f', offset) -- beyond 1e14 it must not turn into scientific notation
end

local function written(epoch, offset, primary, ttl)
  local top = number(offset)
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'offset', top, 'primary', primary)
  redis.call('PEXPIRE', KEYS[1], ttl)
  return epoch .. ':' .. top
end
