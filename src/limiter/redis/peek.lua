-- How limits stand, as they lie in the hash. Reads only. ARGV[2], ... the limits' fields.
-- Answers 'O', now, and then per limit '<I4' and the header, '<I4' and its closed clumps or ghosts.
local got = call('HMGET', KEYS[1], 'e', 'd', unpack(ARGV, 2))
if tonumber(got[1] or -1) ~= EPOCH then return pk('<Bd', 85, got[1] and tonumber(got[1]) or -1) end
local dead = got[2] or ''
local out = { pk('<BdI4', 79, NOW, #dead), dead }
for i = 2, #ARGV do
  local raw, more = got[i + 1], ''
  if raw then
    local k, _, _, _, _, _, _, _, _, _, _, _, g = up(FMT, raw)
    if (k == 1 or k == 3) and g > 0 then more = call('HGET', KEYS[1], 'c' .. ARGV[i]:sub(2)) or '' end
  else
    raw = ''
  end
  out[#out + 1] = pk('<I4', #raw)
  out[#out + 1] = raw
  out[#out + 1] = pk('<I4', #more)
  out[#out + 1] = more
end
return table.concat(out)
