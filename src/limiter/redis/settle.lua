-- The ends of granted calls. A frame that was counted already is not counted again.
--
-- ARGV[2] declarations (DECL each; kind 0: this daemon does not know it), ARGV[3] settles ('<BBddd' 0: not sent, 1: sent,
-- 2: and answered well; of this epoch, count, granted at, blocked for (0: not); '<B' how many limits, '<I2I4I4B' each its
-- position, permits per call as granted and as spent, 1: blocked, 2: something was said of it, 3: both; and if so '<dd'
-- permits left, for how long), ARGV[4], ... the limits' fields. Answers 'O', now.

-- State::settle
local function settle(st, granted, held, spent)
  local D = st.D
  local k = D[1]
  if k == 0 then
    -- Granted elsewhere, or long ago: counted like what the journal knows.
    st.mine = max(st.mine - held, 0)
    if spent > 0 then
      st.kn = st.kn .. pk('<ddd', granted, NOW, spent)
      st.nk = st.nk + 1
    end
    return
  end
  pass(st, D, NOW)
  if k == 1 then
    local by_send = D[8] == 1
    local anchored_by_send = by_send ~= (granted < st.f)
    if anchored_by_send then
      remove(st, granted, max(held - spent, 0))
      add(st, D, NOW, by_send and max(spent - held, 0) or spent)
    elseif not by_send then
      st.mine = max(st.mine - held, 0)
      add(st, D, NOW, spent)
    end
  elseif k == 2 then
    if held > spent then
      local regained = max(st.b - granted, 0) * D[7]
      st.a = max(st.a - max((held - spent) * D[8] - regained, 0), 0)
    elseif spent > held then
      st.a = st.a + (spent - held) * D[8]
    end
  elseif k == 3 then
    st.mine = max(st.mine - held, 0)
  elseif k == 4 then
    st.mine = max(st.mine - held, 0)
    st.c = st.c + spent
    if st.e > 0 then st.f = st.f + spent end
  elseif k == 5 then
    if spent == 0 then
      if st.a == granted + D[6] * held then st.a = granted end
    elseif spent > held then
      st.a = max(st.a, NOW) + D[6] * (spent - held)
    end
  end
end

local states, ring = open(ARGV[2], 4)
if not states then return ring end

local list, pos = ARGV[3], 1
while pos <= #list do
  local sent, current, count, granted, blocked, limits
  sent, current, count, granted, blocked, limits, pos = up('<BBdddB', list, pos)
  for _ = 1, limits do
    local at, held, cost, block
    at, held, cost, block, pos = up('<I2I4I4B', list, pos)
    local left, holds
    if block >= 2 then left, holds, pos = up('<dd', list, pos) end
    local st = states[at]
    if current == 1 and not (st.new and sent == 0) then
      local spent = sent > 0 and count * cost or 0
      settle(st, granted, count * held, spent)
      if st.D[1] > 0 then thaw_ended(st, granted, count, sent == 2) end
      if sent > 0 and not left and counts_in_flight(st.D) then take(st, spent) end
      st.dirty = true
    end
    if left and st.D[1] > 0 and not (st.new and not st.dirty) then
      hear(st, left, math.min(NOW + holds, FAR), granted)
      st.dirty = true
    end
    if fmod(block, 2) == 1 and not (st.new and not st.dirty) then
      local till = math.min(NOW + blocked, FAR)
      st.bl = max(st.bl, till)
      thaw_refused(st, granted, till)
      st.dirty = true
    end
  end
end
if stale then return pk('<Bd', 84, NOW) end

local reply = pk('<Bd', 79, NOW)
local made = write(states, { ring, pk('<dd', FRAME, NOW) .. reply })
sweep(made)
return reply
