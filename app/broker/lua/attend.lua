-- What one node says of its members of a room (A1); also tells all nodes the news that are due. KEYS as above.
-- ARGV: 1, 2 as above, 3 node, 4 ms that this counts without a refresh, 5 "1" where those that come are all it has,
-- 6 PUBLISH or SPUBLISH, 7 channel, 8 how many come, then their sessions and users, then the sessions that go.
-- Answers how many sessions of the node are known now, and ms until the next news (-1: none).
local node = ARGV[3]
redis.call('ZADD', KEYS[3], now + ARGV[4], node)
sweep()

local coming = tonumber(ARGV[8])
local after = 8 + 2 * coming
local keep = {}
for i = 9, after, 2 do
  keep[ARGV[i]] = true
  enter(ARGV[i], node, ARGV[i + 1])
end
for i = after + 1, #ARGV do
  leave(ARGV[i], patience)
end
local sessions = tonumber(redis.call('HGET', KEYS[4], node) or 0)
if ARGV[5] == '1' and sessions ~= coming then
  clear({[node] = true}, keep, patience)
  sessions = coming
  redis.call('HSET', KEYS[4], node, coming)
end
if sessions == 0 then
  redis.call('ZREM', KEYS[3], node)
  redis.call('HDEL', KEYS[4], node)
end

local wait = -1
if patience >= 0 then
  -- Bounded, as a message has to be; more of them come with the next batch.
  local due = redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', now, 'LIMIT', 0, 1000)
  if #due > 0 then
    local told = {}
    for _, entry in ipairs(due) do
      local list = string.sub(entry, 1, 1) == 'j' and 'joined' or 'left'
      told[list] = told[list] or {}
      table.insert(told[list], string.sub(entry, 2))
    end
    redis.call('ZREM', KEYS[5], unpack(due))
    redis.call(ARGV[6], ARGV[7], ':presence:1' .. cjson.encode(told))
  end
  local first = redis.call('ZRANGE', KEYS[5], 0, 0, 'WITHSCORES')
  if first[2] then
    wait = tonumber(first[2]) > now and first[2] - now or batch
  end
end
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, ARGV[4] + math.max(patience, 0) + 5000)
end
return {sessions, wait}
