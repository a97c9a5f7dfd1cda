-- Leave for several requests in order, each over several limits, all or nothing. Nothing is counted for one that waits.
--
-- ARGV[2] declarations (DECL each), ARGV[3] requests ('<I4I4Bd' min, max, class, number; '<B' how many limits, '<I2I4'
-- each its position and what a call costs), ARGV[4], ... the limits' fields. Answers 'O', now, and per request 'G' count, time or 'W' earliest (-1:
-- never), soft, binder.

-- State::room
local function room(st, class, cost, least)
  local D = st.D
  pass(st, D, NOW)
  st.free = own_free(st, cost)
  if NOW < st.bl then return 0 end
  local calls = floor(max(math.min(st.free, said_free(st)) - D[3 + class], 0) / cost)
  calls = math.min(calls, thaw_calls(st, least, NOW))
  if D[1] == 5 then return math.min(calls, 1) end
  return calls
end

-- State::denied: earliest, soft. Right after `room` said fewer.
local function denied(st, class, cost, calls)
  local D = st.D
  local k, kept, need = D[1], D[3 + class], math.min(calls * cost, 4294967295)
  local at, soft = huge, 0
  local cap = max(D[6] - kept, 0)
  local inflight = st.mine + st.others
  if k == 5 then
    if calls <= 1 then at = st.a end
  elseif k ~= 2 and need + kept <= st.free then
    at = 0
  elseif need > cap then
    at = huge
  elseif k == 1 then
    local short = st.a + inflight + need - cap
    soft = 1
    if st.g > 0 then
      local cs = closed(st)
      for pos = 1, 24 * st.g, 24 do
        local _, last, count = up('<ddd', cs, pos)
        short = short - count
        if short <= 0 then
          at, soft = last + D[7], 0
          break
        end
      end
    end
    if short > 0 and st.d > 0 and short <= st.d then at, soft = st.c + D[7], 0 end
  elseif k == 2 then
    local wait = max(st.a - (cap - need) * D[8], 0)
    local rest = fmod(wait, D[7])
    at = st.b + (wait - rest) / D[7] + (rest > 0 and 1 or 0)
  elseif k == 3 then
    local short = st.a + inflight + need - cap
    soft = 1
    if st.g > 0 then
      local g = closed(st)
      for pos = 1, 16 * st.g, 16 do
        local till, count = up('<dd', g, pos)
        short = short - count
        if short <= 0 then
          at, soft = till, inflight > 0 and 1 or 0
          break
        end
      end
    end
  elseif k == 4 then
    local wanted = inflight + need
    if wanted > cap then
      soft = 1
    else
      at = 0
      if st.c + wanted > cap then at = st.b + ERR end
      if st.e > 0 and st.f + wanted > cap then at = max(at, st.e + ERR) end
      if at == 0 then at = st.g end
    end
  end
  if need + kept > said_free(st) and st.ut >= at then at, soft = st.ut, inflight > 0 and 1 or 0 end
  if calls > thaw_calls(st, calls, max(NOW, st.ts)) and st.tm + PATIENCE >= at then at, soft = st.tm + PATIENCE, 1 end
  return max(at, st.bl), soft
end

-- State::grant
local function grant(st, calls, cost)
  local D = st.D
  local k, n = D[1], calls * cost
  if not counts_in_flight(D) then take(st, n) end
  thaw_granted(st, calls)
  if k == 1 and D[8] == 1 then add(st, D, NOW, n)
  elseif k == 2 then st.a = st.a + n * D[8]
  elseif k == 5 then st.a = NOW + D[6] * n
  else st.mine, st.last = st.mine + n, NOW
  end
  st.dirty = true
end

local states, ring = open(ARGV[2], 4, true)
if not states then return ring end

local asked, pos, answers, more, granted, extra = ARGV[3], 1, {}, {}, false, nil
while pos <= #asked do
  local least, most, class, number, count
  least, most, class, number, count, pos = up('<I4I4BdB', asked, pos)
  local answer
  local field = number > 0 and 'q:' .. MINE .. ':' .. string.format('%.0f', fmod(number, RING))
  if field then
    local old = extra and extra[field] or call('HGET', KEYS[1], field)
    if old then
      local first = up('<d', old)
      if first == number then answer = old:sub(17) elseif first > number then answer = 'F' end
    end
  end
  local packed, picked, costs = { up('<' .. ('I2I4'):rep(count), asked, pos) }, {}, {}
  for i = 1, count do picked[i], costs[i] = packed[2 * i - 1], packed[2 * i] end
  pos = packed[2 * count + 1]
  if not answer then
    least = max(least, 1)
    most = max(most, least)
    local binder, until_, soft = nil, 0, 0
    for i = 1, count do
      local st, times = states[picked[i]], 1
      for j = 1, i - 1 do
        if picked[j] == picked[i] then times = times + 1 end
      end
      local calls = floor(room(st, class, costs[i], least * times) / times)
      if calls < least then
        local at, s = denied(st, class, costs[i], least * times)
        -- Of two that open never, the one without hope binds.
        if not binder or at > until_ or (at == until_ and soft == 1 and s == 0) then binder, until_, soft = i, at, s end
      end
      most = math.min(most, calls)
    end
    if binder then
      answer = pk('<BdBI2', 87, until_ < FAR and until_ or -1, soft, binder - 1)
    else
      for i = 1, count do grant(states[picked[i]], most, costs[i]) end
      granted = true
      answer = pk('<BI4d', 71, most, NOW)
    end
    if field then
      extra = extra or {}
      extra[field] = pk('<dd', number, NOW) .. answer
    end
  end
  answers[#answers + 1] = answer
end
-- Before anything is written: the daemon's idea of the time is too far off, it sends the calendar's edges again.
if stale then return pk('<Bd', 84, NOW) end

local reply = pk('<Bd', 79, NOW) .. table.concat(answers)
if granted then more = { ring, pk('<dd', FRAME, NOW) .. reply } end
for field, text in pairs(extra or {}) do
  more[#more + 1] = field
  more[#more + 1] = text
end
local made = write(states, more)
sweep(made)
return reply
