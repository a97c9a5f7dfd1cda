-- The ends of granted calls. A frame that was counted already is not counted again.
--
-- ARGV[2] declarations (DECL each; kind 0: this daemon does not know it), ARGV[3] settles ('<BBddd' sent, of this epoch,
-- count, granted at, blocked for (0: not); '<B' how many limits, '<I2I4B' each its position, permits per call, 1: blocked,
-- 2: something was said of it, 3: both; and if so '<dd' permits left, for how long),
-- ARGV[4], ... the limits' fields. Answers 'O', now.

-- State::settle
local function settle(st, granted, n, sent)
  local D = st.D
  local k = D[1]
  if k == 0 then
    -- Granted elsewhere, or long ago: counted like what the journal knows.
    st.mine = max(st.mine - n, 0)
    if sent then
      st.kn = st.kn .. pk('<ddd', granted, NOW, n)
      st.nk = st.nk + 1
    end
    return
  end
  pass(st, D, NOW)
  if k == 1 then
    local by_send = D[8] == 1
    local anchored_by_send = by_send ~= (granted < st.f)
    if anchored_by_send then
      if not sent then remove(st, granted, n) elseif not by_send then add(st, D, NOW, n) end
    elseif not by_send then
      st.mine = max(st.mine - n, 0)
      if sent then add(st, D, NOW, n) end
    end
  elseif k == 2 and not sent then
    local regained = max(st.b - granted, 0) * D[7]
    st.a = max(st.a - max(n * D[8] - regained, 0), 0)
  elseif k == 3 then
    st.mine = max(st.mine - n, 0)
  elseif k == 4 then
    st.mine = max(st.mine - n, 0)
    if sent then
      st.c = st.c + n
      if st.e > 0 then st.f = st.f + n end
    end
  elseif k == 5 and not sent and st.a == granted + D[6] * n then
    st.a = granted
  end
end

local states, ring = open(ARGV[2], 4)
if not states then return ring end

local list, pos = ARGV[3], 1
while pos <= #list do
  local sent, current, count, granted, blocked, limits
  sent, current, count, granted, blocked, limits, pos = up('<BBdddB', list, pos)
  for _ = 1, limits do
    local at, cost, block
    at, cost, block, pos = up('<I2I4B', list, pos)
    local left, holds
    if block >= 2 then left, holds, pos = up('<dd', list, pos) end
    local st = states[at]
    if current == 1 and not (st.new and sent == 0) then
      settle(st, granted, count * cost, sent == 1)
      if sent == 1 and not left and counts_in_flight(st.D) then take(st, count * cost) end
      st.dirty = true
    end
    if left and st.D[1] > 0 and not (st.new and not st.dirty) then
      hear(st, left, math.min(NOW + holds, FAR))
      st.dirty = true
    end
    if fmod(block, 2) == 1 and not (st.new and not st.dirty) then
      st.bl = max(st.bl, math.min(NOW + blocked, FAR))
      st.dirty = true
    end
  end
end
if stale then return pk('<Bd', 84, NOW) end

local reply = pk('<Bd', 79, NOW)
local made = write(states, { ring, pk('<dd', FRAME, NOW) .. reply })
sweep(made)
return reply
