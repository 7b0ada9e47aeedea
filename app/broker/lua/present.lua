-- Who is in a room (A1). KEYS and ARGV 1, 2 as above; ARGV 3: how many members to name at most.
-- Answers the number of sessions, that of users, and sessions with their "node:user".
sweep()
local limit = 2 * ARGV[3]
local named = {}
local cursor = '0'
while #named < limit do
  local page = redis.call('HSCAN', KEYS[1], cursor, 'COUNT', ARGV[3])
  cursor = page[1]
  for i = 1, math.min(#page[2], limit - #named) do
    table.insert(named, page[2][i])
  end
  if cursor == '0' then
    break
  end
end
return {redis.call('HLEN', KEYS[1]), redis.call('HLEN', KEYS[2]), named}
