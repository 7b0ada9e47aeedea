-- Head of the scripts about who is in a room (A1). KEYS: 1 members (hash session -> node:user), 2 users (hash
-- user -> sessions), 3 nodes (sorted set node -> expiry ms), 4 counts (hash node -> sessions), 5 news (sorted set
-- "j" or "l" and user -> due ms).
-- ARGV: 1 ms that a leave waits before it is told, -1: joins and leaves are not told, 2 ms of which the news are told
-- together.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local patience = tonumber(ARGV[1])
local batch = tonumber(ARGV[2])

-- A change that takes back one that nobody was told of yet is no news at all. Due times are multiples of the batch.
local function note(news, opposite, user, wait)
  if patience >= 0 and redis.call('ZREM', KEYS[5], opposite .. user) == 0 then
    redis.call('ZADD', KEYS[5], math.ceil((now + wait) / batch) * batch, news .. user)
  end
end

-- Answers how many there are now.
local function count(key, field, difference)
  local number = redis.call('HINCRBY', key, field, difference)
  if number <= 0 then
    redis.call('HDEL', key, field)
  end
  return number
end

local function enter(session, node, user)
  if redis.call('HSET', KEYS[1], session, node .. ':' .. user) == 1 then
    count(KEYS[4], node, 1)
    if count(KEYS[2], user, 1) == 1 then
      note('j', 'l', user, 0)
    end
  end
end

local function node_and_user(member)
  local colon = string.find(member, ':', 1, true)
  return string.sub(member, 1, colon - 1), string.sub(member, colon + 1)
end

local function leave(session, wait)
  local member = redis.call('HGET', KEYS[1], session)
  if not member then
    return
  end
  local node, user = node_and_user(member)
  redis.call('HDEL', KEYS[1], session)
  count(KEYS[4], node, -1)
  if count(KEYS[2], user, -1) <= 0 then
    note('l', 'j', user, wait)
  end
end

-- Takes out the sessions of these nodes (a set), but for those to keep (a set).
local function clear(nodes, keep, wait)
  local members = redis.call('HGETALL', KEYS[1])
  for i = 1, #members, 2 do
    if nodes[node_and_user(members[i + 1])] and not keep[members[i]] then
      leave(members[i], wait)
    end
  end
end

-- Whoever comes first claims the members of nodes that have died; they have been gone for long.
local function sweep()
  local expired = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now)
  if #expired == 0 then
    return
  end
  local nodes = {}
  for _, node in ipairs(expired) do
    nodes[node] = true
  end
  clear(nodes, {}, 0)
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
end
