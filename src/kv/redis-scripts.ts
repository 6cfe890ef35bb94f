/**
 * What must happen at once in Redis. Every script touches keys of one hash tag only, takes the time from the server, and is sent by its
 * digest.
 *
 * A claim queue has one hash tag, so that one script takes from many slots; its keys are made from the first, `n`, the last token. `w<slot>` has the
 * waiting members of a slot by the time of their mark, which for urgent ones is moved to before all others. What is claimed is named
 * `slot/member`: `c` has it by the end of its lease, `t` as `token:score`, `r` the score of its next mark; `k` counts it by slot.
 */
const NOW = `local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
`;

export interface RedisScript {
  readonly name: string;
  readonly keys: number;
  readonly lua: string;
}

export const INCREMENT: RedisScript = {
  name: "slipwayIncrement",
  keys: 1,
  lua: `local fresh = redis.call('EXISTS', KEYS[1]) == 0
local value = redis.call('INCRBY', KEYS[1], ARGV[1])
if fresh and ARGV[2] ~= '' then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return value`,
};

/** KEYS: owner, fence. The fence is at least the server's clock in microseconds, so that it also grows when Redis lost the last one. */
export const LEASE_ACQUIRE: RedisScript = {
  name: "slipwayLeaseAcquire",
  keys: 2,
  lua: `if redis.call('EXISTS', KEYS[1]) == 1 then return false end
local t = redis.call('TIME')
local fence = math.max(tonumber(redis.call('GET', KEYS[2]) or '0') + 1, t[1] * 1000000 + t[2])
local text = string.format('%.0f', fence)
redis.call('SET', KEYS[2], text, 'PX', 86400000 + ARGV[2])
redis.call('SET', KEYS[1], text .. ':' .. ARGV[1], 'PX', ARGV[2])
return text`,
};

export const LEASE_RENEW: RedisScript = {
  name: "slipwayLeaseRenew",
  keys: 1,
  lua: `if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])`,
};

export const LEASE_RELEASE: RedisScript = {
  name: "slipwayLeaseRelease",
  keys: 1,
  lua: `if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])`,
};

const GROUP_LIST = `local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)
for _, member in ipairs(gone) do
  redis.call('ZREM', KEYS[2], member)
  redis.call('HDEL', KEYS[1], member)
end
return redis.call('HGETALL', KEYS[1])`;

/** KEYS: values, expiries. */
export const GROUP_READ: RedisScript = { name: "slipwayGroupRead", keys: 2, lua: NOW + GROUP_LIST };

export const GROUP_PUT: RedisScript = {
  name: "slipwayGroupPut",
  keys: 2,
  lua: `${NOW}redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[1])
local last = redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')[2]
redis.call('PEXPIREAT', KEYS[1], last)
redis.call('PEXPIREAT', KEYS[2], last)
${GROUP_LIST}`,
};

export const GROUP_REMOVE: RedisScript = {
  name: "slipwayGroupRemove",
  keys: 2,
  lua: `redis.call('HDEL', KEYS[1], ARGV[1])
return redis.call('ZREM', KEYS[2], ARGV[1])`,
};

/** Urgent marks are so much older. In milliseconds, some three hundred years. */
const QUEUE = `local base = string.sub(KEYS[1], 1, -2)
local ahead = 10000000000000
local function each(list, size, call)
  for i = 1, #list, size do call(unpack(list, i, math.min(i + size - 1, #list))) end
end
`;

/** KEYS: n. ARGV: channel, message, then slot, member, 1 for urgent, ... */
export const QUEUE_MARK: RedisScript = {
  name: "slipwayQueueMark",
  keys: 1,
  lua: `${NOW}${QUEUE}local names, held, bySlot, new = {}, {}, {}, 0
if redis.call('EXISTS', base .. 't') == 1 then
  for i = 3, #ARGV, 3 do names[#names + 1] = ARGV[i] .. '/' .. ARGV[i + 1] end
  each(names, 1000, function(...) for _, claim in ipairs(redis.call('HMGET', base .. 't', ...)) do held[#held + 1] = claim end end)
end
for i = 3, #ARGV, 3 do
  local slot, urgent = ARGV[i], ARGV[i + 2] == '1'
  local score = urgent and now - ahead or now
  if held[i / 3] then
    local name = names[i / 3]
    local before = redis.call('HGET', base .. 'r', name)
    if not before or (urgent and tonumber(before) > 0) then redis.call('HSET', base .. 'r', name, score) end
  else
    local list = bySlot[slot]
    if not list then
      list = {}
      bySlot[slot] = list
    end
    list[#list + 1] = score
    list[#list + 1] = ARGV[i + 1]
  end
end
for slot, list in pairs(bySlot) do
  each(list, 1000, function(...) new = new + redis.call('ZADD', base .. 'w' .. slot, 'LT', ...) end)
end
redis.call('PUBLISH', ARGV[1], ARGV[2])
return new`,
};

/**
 * KEYS: n. ARGV: limit, lease, slots. Members whose lease ran out wait again since their first mark. Answers the token, how many ran out, the
 * time, then of each slot its number, how many, and each member with the time of its mark.
 */
export const QUEUE_CLAIM: RedisScript = {
  name: "slipwayQueueClaim",
  keys: 1,
  lua: `${NOW}${QUEUE}local limit, token, answer, expired = tonumber(ARGV[1]), nil, {}, 0
for _, name in ipairs(redis.call('ZRANGEBYSCORE', base .. 'c', '-inf', now, 'LIMIT', 0, limit)) do
  local slot, member = string.match(name, '^(%d+)/(.*)$')
  local claim = redis.call('HGET', base .. 't', name) or ('0:' .. now)
  redis.call('ZADD', base .. 'w' .. slot, 'LT', string.match(claim, ':(.*)'), member)
  redis.call('ZREM', base .. 'c', name)
  redis.call('HDEL', base .. 't', name)
  redis.call('HDEL', base .. 'r', name)
  redis.call('HINCRBY', base .. 'k', slot, -1)
  expired = expired + 1
end
local function take(slot, count)
  local picked = redis.call('ZPOPMIN', base .. 'w' .. slot, count)
  if #picked == 0 then return 0 end
  token = token or redis.call('INCR', KEYS[1])
  local leases, tokens = {}, {}
  answer[#answer + 1] = slot
  answer[#answer + 1] = #picked / 2
  for i = 1, #picked, 2 do
    local name = slot .. '/' .. picked[i]
    leases[i], leases[i + 1] = now + ARGV[2], name
    tokens[i], tokens[i + 1] = name, token .. ':' .. picked[i + 1]
    answer[#answer + 1] = picked[i]
    local score = tonumber(picked[i + 1])
    answer[#answer + 1] = score < 0 and score + ahead or score
  end
  each(leases, 1000, function(...) redis.call('ZADD', base .. 'c', ...) end)
  each(tokens, 1000, function(...) redis.call('HSET', base .. 't', ...) end)
  redis.call('HINCRBY', base .. 'k', slot, #picked / 2)
  return #picked / 2
end
local share, full = math.ceil(limit / (#ARGV - 2)), {}
for i = 3, #ARGV do
  if limit == 0 then break end
  local count = take(ARGV[i], math.min(share, limit))
  limit = limit - count
  if count == share then full[#full + 1] = ARGV[i] end
end
for _, slot in ipairs(full) do
  if limit == 0 then break end
  limit = limit - take(slot, limit)
end
return {tostring(token or 0), expired, now, answer}`,
};

/** KEYS: n. ARGV: slot, member, token, ... */
export const QUEUE_COMPLETE: RedisScript = {
  name: "slipwayQueueComplete",
  keys: 1,
  lua: `${QUEUE}local names, done, counts = {}, {}, {}
for i = 1, #ARGV, 3 do names[#names + 1] = ARGV[i] .. '/' .. ARGV[i + 1] end
local claims, again = {}, {}
each(names, 1000, function(...) for _, claim in ipairs(redis.call('HMGET', base .. 't', ...)) do claims[#claims + 1] = claim end end)
if redis.call('EXISTS', base .. 'r') == 1 then
  each(names, 1000, function(...) for _, score in ipairs(redis.call('HMGET', base .. 'r', ...)) do again[#again + 1] = score end end)
end
for i, name in ipairs(names) do
  local slot, member, token = ARGV[i * 3 - 2], ARGV[i * 3 - 1], ARGV[i * 3]
  if claims[i] and string.match(claims[i], '^(.-):') == token then
    done[#done + 1] = name
    counts[slot] = (counts[slot] or 0) + 1
    if again[i] then
      redis.call('HDEL', base .. 'r', name)
      redis.call('ZADD', base .. 'w' .. slot, 'LT', again[i], member)
    end
  end
end
each(done, 1000, function(...)
  redis.call('ZREM', base .. 'c', ...)
  redis.call('HDEL', base .. 't', ...)
end)
for slot, count in pairs(counts) do redis.call('HINCRBY', base .. 'k', slot, -count) end
return #done`,
};

/** KEYS: n. ARGV: lease, then slot, member, token, ... */
export const QUEUE_EXTEND: RedisScript = {
  name: "slipwayQueueExtend",
  keys: 1,
  lua: `${NOW}${QUEUE}for i = 2, #ARGV, 3 do
  local name = ARGV[i] .. '/' .. ARGV[i + 1]
  local claim = redis.call('HGET', base .. 't', name)
  if claim and string.match(claim, '^(.-):') == ARGV[i + 2] then redis.call('ZADD', base .. 'c', 'XX', now + ARGV[1], name) end
end
return 1`,
};

/** KEYS: n. ARGV: slots. Answers depth and age of each. */
export const QUEUE_STATES: RedisScript = {
  name: "slipwayQueueStates",
  keys: 1,
  lua: `${NOW}${QUEUE}local answer, oldest = {}, {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', base .. 'c', '-inf', now, 'LIMIT', 0, 1000)) do
  local slot, claim = string.match(name, '^(%d+)/'), redis.call('HGET', base .. 't', name)
  if claim then
    local score = tonumber(string.match(claim, ':(.*)'))
    oldest[slot] = math.min(oldest[slot] or now, score < 0 and score + ahead or score)
  end
end
for i, slot in ipairs(ARGV) do
  local key, first = base .. 'w' .. slot, oldest[slot] or now
  local urgent = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  if urgent and tonumber(urgent) < 0 then first = math.min(first, urgent + ahead) end
  local plain = redis.call('ZRANGEBYSCORE', key, 0, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  if plain then first = math.min(first, tonumber(plain)) end
  answer[i * 2 - 1] = redis.call('ZCARD', key) + tonumber(redis.call('HGET', base .. 'k', slot) or '0')
  answer[i * 2] = now - first
end
return answer`,
};

export const REDIS_SCRIPTS: readonly RedisScript[] = [
  INCREMENT,
  LEASE_ACQUIRE,
  LEASE_RENEW,
  LEASE_RELEASE,
  GROUP_READ,
  GROUP_PUT,
  GROUP_REMOVE,
  QUEUE_MARK,
  QUEUE_CLAIM,
  QUEUE_COMPLETE,
  QUEUE_EXTEND,
  QUEUE_STATES,
];
