-- What one node says of its members of a room (A1); also tells all nodes the news that are due. KEYS as above.
-- ARGV: 1, 2 as above, 3 node, 4 ms that this counts without a refresh, 5 "1" while the node has members, 6 "1" where
-- those that come are all it has, 7 PUBLISH or SPUBLISH, 8 channel, 9 how many come, then their sessions and users, then
-- the sessions that go. Answers whether the node's earlier members were still known, and ms until the next news (-1: none).
local node = ARGV[3]
local known = redis.call('ZSCORE', KEYS[3], node) and 1 or 0
if ARGV[5] == '1' then
  redis.call('ZADD', KEYS[3], now + ARGV[4], node)
else
  redis.call('ZREM', KEYS[3], node)
end
sweep()

local after = 9 + 2 * ARGV[9]
local keep = {}
for i = 10, after, 2 do
  keep[ARGV[i]] = true
  enter(ARGV[i], node, ARGV[i + 1])
end
for i = after + 1, #ARGV do
  leave(ARGV[i], patience)
end
if ARGV[6] == '1' and known == 1 then
  clear({[node] = true}, keep, patience)
end

local wait = -1
if patience >= 0 then
  -- Bounded, as a message has to be; more of them come with the next batch.
  local due = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, 1000)
  if #due > 0 then
    local told = {}
    for _, entry in ipairs(due) do
      local list = string.sub(entry, 1, 1) == 'j' and 'joined' or 'left'
      told[list] = told[list] or {}
      table.insert(told[list], string.sub(entry, 2))
    end
    redis.call('ZREM', KEYS[4], unpack(due))
    redis.call(ARGV[7], ARGV[8], ':presence:1' .. cjson.encode(told))
  end
  local first = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
  if first[2] then
    wait = tonumber(first[2]) > now and first[2] - now or batch
  end
end
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, ARGV[4] + math.max(patience, 0) + 5000)
end
return {known, wait}
