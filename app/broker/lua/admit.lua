-- Counts a session as one of its user's, unless there are as many as allowed. KEYS: 1 sorted set session -> expiry.
-- ARGV: 1 session, 2 seconds it counts without a refresh, 3 limit (-1: none, a refresh). Answers 1 or 0.
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local limit = tonumber(ARGV[3])
if limit >= 0 and not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= limit then
  return 0
end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
