-- What answers tell of a limit: numbers, and refusals after which one call goes first. Between `common.lua` and a verb; the
-- arithmetic is that of src/limit/correction.rs and src/limit/thaw.rs.
local PATIENCE, GOOD = 30 * SECOND, 32

-- Permits not in use, whoever asks and whatever the provider said; after `pass`.
local function own_free(st, cost)
  local D, free = st.D, 0
  local k = D[1]
  if k == 1 or k == 3 then free = D[6] - st.a - st.mine - st.others
  elseif k == 2 then
    local left = max(D[6] * D[8] - st.a, 0)
    free = (left - fmod(left, D[8])) / D[8]
  elseif k == 4 then free = D[6] - max(st.c, st.e > 0 and st.f or 0) - st.mine - st.others
  elseif k == 5 then free = st.a <= NOW and cost or 0
  end
  return max(free, 0)
end

-- Thaw::calls
local function thaw_calls(st, least, at)
  if st.tm == 0 or at < st.ts then return huge end
  return at >= st.tm + PATIENCE and max(st.tc, least) or st.tc
end

-- Thaw::granted
local function thaw_granted(st, calls)
  if st.tm > 0 and NOW >= st.ts then
    st.tc, st.tm = max(st.tc - calls, 0), NOW
  end
end

-- Thaw::ended
local function thaw_ended(st, granted, calls, good)
  if st.tm == 0 or granted <= st.ts then return end
  st.tc = st.tc + (good and 2 * calls or calls)
  if good then st.tg = st.tg + calls end
  st.tm = max(st.tm, NOW)
  if st.tg >= GOOD then st.ts, st.tm, st.tc, st.tg = 0, 0, 0, 0 end
end

-- Thaw::refused
local function thaw_refused(st, granted, till)
  if till <= NOW then return end
  if st.tm > 0 and granted <= st.ts then
    st.tm = max(st.tm, till)
  else
    st.ts, st.tm, st.tc, st.tg = NOW, till, 1, 0
  end
end

-- State::hear: Correction::hear, Thaw::ran_out, Thaw::told. Statements of one window differ by no more than SAME
-- (correction.rs).
local SAME = 2e6
local function hear(st, left, till, granted)
  pass(st, st.D, NOW)
  if till > NOW then
    if st.ut == 0 or till > st.ut + SAME then
      st.ut, st.lf = till, left
    elseif till + SAME >= st.ut then
      st.lf = math.min(st.lf, left)
    end
  end
  local cost = st.D[2]
  if st.ut > 0 and st.lf < cost and own_free(st, cost) >= cost then
    st.ts, st.tm, st.tc, st.tg = st.ut - 1, st.ut, 1, 0
  elseif till > NOW and granted > st.ts then
    st.ts, st.tm, st.tc, st.tg = 0, 0, 0, 0
  end
end

