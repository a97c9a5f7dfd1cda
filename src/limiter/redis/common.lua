-- What all verbs share: one limit of any kind, read from and written to one field of the provider's hash.
--
-- The arithmetic is that of src/limit/*.rs, line by line; tests/it/limits holds the two to the same answers. Times are
-- microseconds of this server's clock, numbers are doubles (exact up to 2^53). Put in front of each verb.
--
-- KEYS[1], one hash per provider:  e               epoch: without it everything is lost, and nothing is "fresh"
--                                  h:<limit key>   header (FMT), calls in flight per daemon, calls known from the journal
--                                  c:<limit key>   closed clumps (first, last, count), or ghosts (until, count)
--                                  a:<daemon>:<n>  answers to this daemon's frames, a ring
--                                  q:<daemon>:<n>  answers to numbered requests, a ring
--                                  d               dead daemons and when their last calls have ended (id, at, ...)
--                                  s               where the sweep goes on
-- ARGV[1]: the frame's head, HEAD.
local up, pk, call, floor, fmod, max, huge = struct.unpack, struct.pack, redis.call, math.floor, math.fmod, math.max, math.huge
-- Later than anything that happens; and what two clocks may differ by (limit/calendar.rs).
local FAR, ERR, SECOND = 8e15, 1e6, 1e6
local RING = 4096
-- kind, switch, daemons in flight, known calls; idle from, blocked until, and seven numbers by kind:
--   1 window   a used, b c d the newest clump (first, last, count), e end of the oldest closed one, f switched, g closed
--   2 bucket   a missing, b at, c refill
--   3 wire     a ghosts' calls, b the first ghost's end, g ghosts
--   4 calendar a b c start, end, used; d e f the same around an edge; g valid until
--   5 paced    a next at
--   0          not declared yet: only known calls
-- Behind it the calls in flight, the known calls, and, while they are in force, what the provider said ('<dd' until, left)
-- and how the limit opens after a refusal ('<dddd' since, moved at, credit, good answers: limit/thaw.rs).
local THAW_KEPT = 600 * SECOND
local FMT, SIZE = '<BBBI4ddddddddd', 79
-- of a test: the time, else 0; epoch; daemon; longest time in flight; frame; 1: do not begin it, tell its answer
local HEAD = '<dddddd'
-- kind, cost, kept back per class, five numbers: window max, hold, by send; bucket capacity, refill, per; wire max;
-- calendar max, four edges of periods; paced interval
local DECL, DECL_SIZE = '<BI4I4I4I4ddddd', 57

local NOW, EPOCH, ME, HOLD, FRAME, RECALL = up(HEAD, ARGV[1])
if NOW == 0 then
  local t = call('TIME')
  NOW = t[1] * SECOND + t[2]
end
local MINE = string.format('%.0f', ME)
-- Set when the edges of a calendar that came with the frame are not around NOW.
local stale = false

-- raw: the header as read, or false. Calls in flight of a daemon that is silent for too long, or known to be dead, are
-- put aside in `gone` as (at, count, ...).
local function load(raw, name, dead)
  if not raw then
    return { k = 0, s = 0, bl = 0, a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, mine = 0, last = 0, others = 0,
      no = 0, os = '', nk = 0, kn = '', name = name, idle = 0, ut = 0, lf = 0, ts = 0, tm = 0, tc = 0, tg = 0, new = true }
  end
  local k, s, ns, nk, idle, bl, a, b, c, d, e, f, g = up(FMT, raw)
  local st = { k = k, s = s, bl = bl, a = a, b = b, c = c, d = d, e = e, f = f, g = g, mine = 0, last = 0, others = 0,
    no = 0, os = '', nk = nk, kn = '', name = name, idle = idle, ut = 0, lf = 0, ts = 0, tm = 0, tc = 0, tg = 0 }
  local pos = SIZE + 1
  for _ = 1, ns do
    local id, n, last = up('<I4I4d', raw, pos)
    local ended = last + HOLD
    local buried = dead and dead[id]
    if buried and buried < ended then ended = buried end
    if ended <= NOW then
      st.gone = st.gone or {}
      table.insert(st.gone, { ended, n, raw:sub(pos, pos + 15) })
    elseif id == ME then
      st.mine, st.last = n, last
    else
      st.others, st.no, st.os = st.others + n, st.no + 1, st.os .. raw:sub(pos, pos + 15)
    end
    pos = pos + 16
  end
  if nk > 0 then
    st.kn = raw:sub(pos, pos + 24 * nk - 1)
    pos = pos + 24 * nk
  end
  local rest = #raw - pos + 1
  if rest == 16 or rest == 48 then
    local till, left
    till, left, pos = up('<dd', raw, pos)
    if till > NOW then st.ut, st.lf = till, left end
  end
  if rest >= 32 then
    st.ts, st.tm, st.tc, st.tg = up('<dddd', raw, pos)
    if st.tm + THAW_KEPT <= NOW then st.ts, st.tm, st.tc, st.tg = 0, 0, 0, 0 end
  end
  return st
end

-- Correction::free
local function said_free(st)
  if st.ut == 0 then return huge end
  return max(st.lf - st.mine - st.others, 0)
end

-- Does the state know what is on the wire? Else a grant counts as arrived.
local function counts_in_flight(D)
  return D[1] == 3 or D[1] == 4 or (D[1] == 1 and D[8] ~= 1)
end

-- Correction::take
local function take(st, n)
  if st.ut > 0 then st.lf = max(st.lf - n, 0) end
end

-- The closed clumps or ghosts as they lie in the hash.
local function closed(st)
  if not st.cs then
    st.cs = st.g > 0 and call('HGET', KEYS[1], 'c' .. st.name:sub(2)) or ''
  end
  return st.cs
end

-- All clumps as one list: first, last, count, first, ...
local function clumps(st)
  local t = {}
  if st.g > 0 then
    t = { up('<' .. ('d'):rep(3 * st.g), closed(st)) }
    t[3 * st.g + 1] = nil
  end
  if st.d > 0 then
    local n = #t
    t[n + 1], t[n + 2], t[n + 3] = st.b, st.c, st.d
  end
  return t
end

local function put_clumps(st, t)
  local n = #t / 3
  st.cd = true
  if n == 0 then
    st.b, st.c, st.d, st.e, st.g, st.cs = 0, 0, 0, 0, 0, ''
    return
  end
  st.b, st.c, st.d = t[3 * n - 2], t[3 * n - 1], t[3 * n]
  st.g = n - 1
  st.e = n > 1 and t[2] or 0
  st.cs = n > 1 and pk('<' .. ('d'):rep(3 * n - 3), unpack(t, 1, 3 * n - 3)) or ''
end

-- Window::join_two
local function join(st)
  local t = clumps(st)
  local best, at = huge, 0
  for i = 1, #t / 3 - 1 do
    local cost = t[3 * i] * (t[3 * i + 2] - t[3 * i - 1])
    if cost < best then best, at = cost, i end
  end
  if at == 0 then return end
  t[3 * at - 1] = t[3 * at + 2]
  t[3 * at] = t[3 * at] + t[3 * at + 3]
  for _ = 1, 3 do table.remove(t, 3 * at + 1) end
  put_clumps(st, t)
end

-- Window::add
local function add(st, D, at, n)
  if n == 0 then return end
  st.a = st.a + n
  if st.d == 0 then
    st.b, st.c, st.d = at, at, n
    return
  end
  local slice = max(floor(D[7] / 128), 1)
  local gap = max(floor(slice / 8), 1)
  local many = st.g + 1 >= 65
  if st.b <= at then
    if at <= st.c or (many and at - st.b < slice and at - st.c < gap) then
      st.c = max(st.c, at)
      st.d = st.d + n
      return
    end
    st.cs = closed(st) .. pk('<ddd', st.b, st.c, st.d)
    st.cd = true
    st.g = st.g + 1
    if st.g == 1 then st.e = st.c end
    st.b, st.c, st.d = at, at, n
  else
    -- Out of order: an answer from a journal, or one that a clump of later stamps has overtaken.
    local t, i = clumps(st), st.g + 1
    while i > 0 and t[3 * i - 2] > at do i = i - 1 end
    if i > 0 then
      local first, last = t[3 * i - 2], t[3 * i - 1]
      if at <= last or (many and at - first < slice and at - last < gap) then
        t[3 * i - 1] = max(last, at)
        t[3 * i] = t[3 * i] + n
        put_clumps(st, t)
        return
      end
    end
    table.insert(t, 3 * i + 1, n)
    table.insert(t, 3 * i + 1, at)
    table.insert(t, 3 * i + 1, at)
    put_clumps(st, t)
  end
  if st.g + 1 > 130 then join(st) end
end

-- Window::remove
local function remove(st, at, n)
  if n == 0 then return end
  local t = clumps(st)
  for i = #t / 3, 1, -1 do
    if t[3 * i - 2] <= at and at <= t[3 * i - 1] then
      n = math.min(n, t[3 * i])
      t[3 * i] = t[3 * i] - n
      st.a = st.a - n
      if t[3 * i] == 0 then
        for _ = 1, 3 do table.remove(t, 3 * i - 2) end
      end
      put_clumps(st, t)
      return
    end
  end
end

-- Window::switch
local function switch(st, D)
  st.s = D[8]
  local inflight = st.mine + st.others
  if inflight == 0 and st.d == 0 then return end
  st.f = NOW
  st.dirty = true
  if st.s == 1 then
    st.mine, st.others, st.no, st.os = 0, 0, 0, ''
    add(st, D, NOW, inflight)
  end
end

-- Window::evict, Bucket::advance, Concurrency::evict, Calendar::roll
local function pass(st, D, t)
  local k = D[1]
  if k == 1 then
    if st.s ~= D[8] then switch(st, D) end
    local hold = D[7]
    if st.g > 0 and st.e + hold <= NOW then
      local cs, pos, n = closed(st), 1, st.g
      st.e = 0
      while n > 0 do
        local _, last, count = up('<ddd', cs, pos)
        if last + hold > NOW then
          st.e = last
          break
        end
        st.a, pos, n = st.a - count, pos + 24, n - 1
      end
      st.cs, st.g, st.cd = cs:sub(pos), n, true
    end
    if st.g == 0 and st.d > 0 and st.c + hold <= NOW then
      st.a, st.b, st.c, st.d = st.a - st.d, 0, 0, 0
    end
  elseif k == 2 then
    local rate = st.c == 0 and D[7] or math.min(st.c, D[7])
    st.c = D[7]
    if t > st.b then
      st.a = max(st.a - (t - st.b) * rate, 0)
      st.b = t
    end
  elseif k == 3 then
    if st.g > 0 and st.b <= NOW then
      local g = { up('<' .. ('d'):rep(2 * st.g), closed(st)) }
      local keep = {}
      st.a = 0
      for i = 1, st.g do
        if g[2 * i - 1] > NOW then
          table.insert(keep, g[2 * i - 1])
          table.insert(keep, g[2 * i])
          st.a = st.a + g[2 * i]
        end
      end
      st.g, st.b, st.cd = #keep / 2, keep[1] or 0, true
      st.cs = #keep > 0 and pk('<' .. ('d'):rep(#keep), unpack(keep)) or ''
    end
  elseif k == 4 then
    if NOW < st.g then return end
    local slots, from = {}, NOW - ERR
    while true do
      local s, e
      for j = 7, 9 do
        if D[j] <= from and from < D[j + 1] then s, e = D[j], D[j + 1] end
      end
      if not s or #slots == 2 then
        stale = true
        return
      end
      local used = 0
      if st.b > 0 and st.a == s then used = st.c elseif st.e > 0 and st.d == s then used = st.f end
      table.insert(slots, { s, e, used })
      if e > NOW + ERR then break end
      from = e
    end
    local x, y = slots[1], slots[2] or { 0, 0, 0 }
    st.a, st.b, st.c, st.d, st.e, st.f = x[1], x[2], x[3], y[1], y[2], y[3]
    local valid = huge
    for _, slot in ipairs(slots) do
      valid = math.min(valid, slot[2] + ERR)
      if slot[2] - ERR > NOW then valid = math.min(valid, slot[2] - ERR) end
    end
    st.g = valid
  end
end

-- A call known from the journal.
local function seed(st, D, granted, anchored, n)
  local k = D[1]
  if k == 1 then
    pass(st, D, NOW)
    if anchored + D[7] > NOW then add(st, D, anchored, n) end
  elseif k == 2 then
    pass(st, D, anchored)
    st.a = st.a + n * D[8]
  elseif k == 3 then
    if anchored <= NOW or n == 0 then return end
    local g = st.g > 0 and { up('<' .. ('d'):rep(2 * st.g), closed(st)) } or {}
    g[2 * st.g + 1] = nil
    local i = st.g
    while i > 0 and g[2 * i - 1] > anchored do i = i - 1 end
    table.insert(g, 2 * i + 1, n)
    table.insert(g, 2 * i + 1, anchored)
    if #g / 2 > 130 then
      local last = #g
      g[last - 3], g[last - 2] = g[last - 1], g[last - 2] + g[last]
      g[last - 1], g[last] = nil, nil
    end
    st.a, st.b, st.g, st.cd = st.a + n, g[1], #g / 2, true
    st.cs = pk('<' .. ('d'):rep(#g), unpack(g))
  elseif k == 4 then
    pass(st, D, NOW)
    if anchored >= st.a - ERR and granted < st.b + ERR then st.c = st.c + n end
    if st.e > 0 and anchored >= st.d - ERR and granted < st.e + ERR then st.f = st.f + n end
  elseif k == 5 then
    st.a = max(st.a, anchored + D[6] * n)
  end
end

-- The state under the declaration in force (Slot::declare): another kind begins anew, what the journal knows is counted
-- as soon as somebody says how, and calls of dead daemons count from the time by which they must have ended.
local function declare(st, D)
  if st.k ~= D[1] then
    if st.k ~= 0 then
      st.s, st.bl, st.a, st.b, st.c, st.d, st.e, st.f, st.g = 0, 0, 0, 0, 0, 0, 0, 0, 0
      st.ut, st.lf, st.ts, st.tm, st.tc, st.tg = 0, 0, 0, 0, 0, 0
      st.mine, st.others, st.no, st.os, st.gone, st.cs, st.cd = 0, 0, 0, '', nil, '', true
    end
    st.k = D[1]
  end
  if st.nk > 0 then
    local t = {}
    for i = 1, st.nk do
      local granted, anchored, n = up('<ddd', st.kn, 24 * i - 23)
      t[i] = { granted, anchored, n }
    end
    table.sort(t, function(x, y) return x[2] < y[2] end)
    for i = 1, #t do seed(st, D, t[i][1], t[i][2], t[i][3]) end
    st.nk, st.kn, st.dirty = 0, '', true
  end
  if st.gone then
    pass(st, D, NOW)
    for _, x in ipairs(st.gone) do
      if counts_in_flight(D) then take(st, x[2]) end
      if D[1] == 1 and D[8] == 0 and x[1] + D[7] > NOW then add(st, D, x[1], x[2]) end
      if D[1] == 4 then
        st.c = st.c + x[2]
        if st.e > 0 then st.f = st.f + x[2] end
      end
    end
    st.gone, st.dirty = nil, true
  end
  st.declared = D
end

-- From when on a fresh limit would give the same answers.
local function idle_at(st)
  local D = st.declared
  if st.mine + st.others > 0 or st.gone then return FAR end
  if not D then return max(st.idle, st.nk > 0 and NOW + 32 * 86400 * SECOND or 0) end
  local k, at = D[1], 0
  if k == 1 then at = st.d > 0 and st.c + D[7] or 0
  elseif k == 2 then at = st.b + math.ceil(st.a / D[7])
  elseif k == 3 then
    if st.g > 0 then at = up('<d', closed(st), 16 * st.g - 15) end
  elseif k == 4 then
    if st.c > 0 then at = st.b + ERR end
    if st.e > 0 and st.f > 0 then at = max(at, st.e + ERR) end
  elseif k == 5 then at = st.a end
  return max(at, st.bl, st.ut, st.tm > 0 and st.tm + THAW_KEPT or 0)
end

-- The header as it is written.
local function header(st)
  local slots, ns = st.os, st.no
  if st.mine > 0 then slots, ns = pk('<I4I4d', ME, st.mine, st.last) .. slots, ns + 1 end
  for _, x in ipairs(st.gone or {}) do slots, ns = slots .. x[3], ns + 1 end
  return pk(FMT, st.k, st.s, ns, st.nk, idle_at(st), st.bl, st.a, st.b, st.c, st.d, st.e, st.f, st.g) .. slots .. st.kn
    .. (st.ut > NOW and pk('<dd', st.ut, st.lf) or '')
    .. (st.tm > 0 and pk('<dddd', st.ts, st.tm, st.tc, st.tg) or '')
end

-- Writes all that changed, in one command, with `more` fields and values.
local function write(states, more)
  local put, gone, made = more, nil, 0
  for i = 1, #states do
    local st = states[i]
    if st.dirty then
      if st.new then made = made + 1 end
      put[#put + 1] = st.name
      put[#put + 1] = header(st)
      if st.cd then
        if st.g > 0 and (st.k == 1 or st.k == 3) then
          put[#put + 1] = 'c' .. st.name:sub(2)
          put[#put + 1] = st.cs
        else
          gone = gone or {}
          gone[#gone + 1] = 'c' .. st.name:sub(2)
        end
      end
    end
  end
  if #put > 0 then call('HSET', KEYS[1], unpack(put)) end
  if gone then call('HDEL', KEYS[1], unpack(gone)) end
  return made
end

-- Removes limits that have had no count for a while, and answers that nobody will ask for again. Every new limit looks at
-- about eight fields, so memory follows the limits in use without a pause to sweep; so does every 64th frame, because
-- daemons that come and go leave their answers behind though no limit is new.
local DAY, KEPT, EACH = 86400 * SECOND, 10 * SECOND, 64
local function sweep(made)
  if made == 0 then
    if fmod(FRAME, EACH) > 0 then return 0 end
    made = 1
  end
  local count = 8 * made
  local got = call('HSCAN', KEYS[1], call('HGET', KEYS[1], 's') or '0', 'COUNT', count)
  local fields, gone = got[2], {}
  for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    local what = name:sub(1, 2)
    if what == 'h:' then
      local idle = up('<d', value, 8)
      if idle + KEPT <= NOW then
        gone[#gone + 1] = name
        gone[#gone + 1] = 'c' .. name:sub(2)
      end
    elseif what == 'a:' or what == 'q:' then
      local _, at = up('<dd', value)
      if at + DAY <= NOW then gone[#gone + 1] = name end
    end
  end
  for i = 1, #gone, 1000 do call('HDEL', KEYS[1], unpack(gone, i, math.min(i + 999, #gone))) end
  call('HSET', KEYS[1], 's', got[1])
  return #gone
end

-- The frame's limits by number, its fields being ARGV[from], ... Returns them, or an answer that ends the frame. Whoever
-- was buried and `asks` for permits hears of it.
local function open(decls, from, asks)
  local ring = 'a:' .. MINE .. ':' .. fmod(FRAME, RING)
  local got = call('HMGET', KEYS[1], 'e', 'd', ring, unpack(ARGV, from))
  if tonumber(got[1] or -1) ~= EPOCH then return nil, pk('<Bd', 85, got[1] and tonumber(got[1]) or -1) end
  if got[3] then
    local frame = up('<d', got[3])
    if frame == FRAME then return nil, got[3]:sub(17) end
    if frame > FRAME then return nil, 'F' end
  end
  if RECALL == 1 then
    call('HSET', KEYS[1], ring, pk('<dd', FRAME, NOW) .. 'V')
    return nil, 'V'
  end
  local dead
  if got[2] then
    dead = {}
    for i = 1, #got[2], 16 do
      local id, at = up('<dd', got[2], i)
      dead[id] = at
      if asks and id == ME then return nil, 'B' end
    end
  end
  -- Thousands of accounts have one declaration.
  local states, seen = {}, {}
  for i = from, #ARGV do
    local st = load(got[i - from + 4], ARGV[i], dead)
    local text = decls:sub((i - from) * DECL_SIZE + 1, (i - from + 1) * DECL_SIZE)
    local D = seen[text]
    if not D then
      D = { up(DECL, text) }
      seen[text] = D
    end
    st.D = D
    if D[1] > 0 then declare(st, D) end
    states[i - from + 1] = st
  end
  return states, ring
end
