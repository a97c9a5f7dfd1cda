-- What the journal knows. Rebuilding goes by a hash of its own, KEYS[2], that takes the provider's place when it is
-- complete: nobody ever sees half of it, and of two daemons that rebuild one epoch the first wins.
--
-- ARGV[2]: 'stage' puts calls aside (ARGV[3] per limit '<I4' count and '<ddd' age of the grant, age of the anchor
-- (negative: still to come), permits; ARGV[4], ... the fields), 'ask' tells whether there is anything to do, 'commit' puts the hash in its place (ARGV[3] how many
-- frames were staged), 'merge' adds to what is counted, as a journal read by one process does. 'bury' notes that a
-- daemon (ARGV[3]) is dead and when its last call has ended, as an age (ARGV[4]); the first to say so is believed.
local verb = ARGV[2]

local function known(into)
  local list, pos = ARGV[3], 1
  local put = {}
  for i = 4, #ARGV do
    local st = load(call('HGET', into, ARGV[i]), ARGV[i])
    local n
    n, pos = up('<I4', list, pos)
    local parts = {}
    for j = 1, n do
      local granted, anchored, permits
      granted, anchored, permits, pos = up('<ddd', list, pos)
      parts[j] = pk('<ddd', NOW - granted, NOW - anchored, permits)
      st.idle = max(st.idle, NOW - anchored + 32 * DAY)
    end
    st.kn, st.nk = st.kn .. table.concat(parts), st.nk + n
    put[#put + 1] = ARGV[i]
    put[#put + 1] = header(st)
  end
  if #put > 0 then call('HSET', into, unpack(put)) end
end

if verb == 'stage' then
  known(KEYS[2])
  call('HINCRBY', KEYS[2], 'n', 1)
  -- Of a daemon that dies halfway.
  call('PEXPIRE', KEYS[2], 600000)
  return pk('<Bd', 79, NOW)
end

local epoch = tonumber(call('HGET', KEYS[1], 'e') or -1)
if verb == 'commit' then
  if epoch >= EPOCH then
    call('UNLINK', KEYS[2])
    return pk('<Bd', epoch == EPOCH and 79 or 85, epoch == EPOCH and NOW or epoch)
  end
  if tonumber(call('HGET', KEYS[2], 'n') or 0) ~= tonumber(ARGV[3]) then return 'F' end
  call('HDEL', KEYS[2], 'n')
  call('HSET', KEYS[2], 'e', string.format('%.0f', EPOCH))
  call('PERSIST', KEYS[2])
  -- RENAME would free the old hash at once, however large.
  call('UNLINK', KEYS[1])
  call('RENAME', KEYS[2], KEYS[1])
  return pk('<Bd', 79, NOW)
end

if epoch ~= EPOCH then return pk('<Bd', 85, epoch) end
if verb == 'merge' then
  known(KEYS[1])
elseif verb == 'bury' then
  local dead = call('HGET', KEYS[1], 'd') or ''
  for i = 1, #dead, 16 do
    if up('<d', dead, i) == tonumber(ARGV[3]) then return pk('<Bd', 79, NOW) end
  end
  -- The oldest of 64 is long past.
  call('HSET', KEYS[1], 'd', dead:sub(-63 * 16) .. pk('<dd', tonumber(ARGV[3]), NOW - tonumber(ARGV[4])))
end
return pk('<Bd', 79, NOW)
