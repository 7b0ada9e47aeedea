-- The room's newest position; begins an epoch where there is none, and refreshes the life of meta (P5).
-- KEYS: 1 meta, 2 stream. ARGV: 1 meta ms, 2 "1" where a restarted primary is trusted.
local epoch, top, primary = position(ARGV[2] == '1')
return written(epoch, top, primary, ARGV[1])
