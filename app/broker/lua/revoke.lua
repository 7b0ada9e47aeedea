-- Notes an entry of a list until a time, unless the list is full. KEYS: 1 sorted set entry -> end (Unix time, seconds).
-- ARGV: 1 entry, 2 end, 3 most entries. Answers 1 or 0. What is noted already only ever ends later.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', redis.call('TIME')[1])
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then
  return 0
end
redis.call('ZADD', KEYS[1], 'GT', ARGV[2], ARGV[1])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
redis.call('EXPIREAT', KEYS[1], string.format('%.0f', tonumber(last[2]) + 1))
return 1
