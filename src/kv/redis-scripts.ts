/**
 * What must happen at once in Redis. Every script touches keys of one hash tag only, takes the time from the server, and is sent by its
 * digest.
 *
 * A claim queue has one hash tag, so that one script takes from many slots; its keys are made from the first, `n`, the last token. `w<slot>` has the
 * waiting members of a slot by the time of their mark, which for urgent ones is moved to before all others. A claim is one record, `b<token>`, with
 * its members and their scores; its lease is in `c`. `p<token>` tells for a day that the members of a claim went apart. `t<slot>` names the record of a claimed member, `r<slot>` has the score of its next mark; `k` counts them by slot.
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
export const URGENT_AHEAD_MS = 10_000_000_000_000;

/** `t` names the record that a member is in; a record also has members that left it meanwhile. */
const QUEUE = `local base = string.sub(KEYS[1], 1, -2)
local ahead = ${URGENT_AHEAD_MS}
local function each(list, size, call)
  for i = 1, #list, size do call(unpack(list, i, math.min(i + size - 1, #list))) end
end
local function every_other(list)
  local members = {}
  for i = 1, #list, 2 do members[#members + 1] = list[i] end
  return members
end
local function owners(slot, members)
  local found = {}
  each(members, 1000, function(...) for _, record in ipairs(redis.call('HMGET', base .. 't' .. slot, ...)) do found[#found + 1] = record end end)
  return found
end
local function slots_of(record)
  local packed = redis.call('GET', base .. 'b' .. record)
  return packed and cmsgpack.unpack(packed) or {}
end
local function forget(record)
  redis.call('ZREM', base .. 'c', record)
  redis.call('DEL', base .. 'b' .. record)
end
local function done(slot, members)
  local again = redis.call('EXISTS', base .. 'r' .. slot) == 1
  each(members, 1000, function(...)
    redis.call('HDEL', base .. 't' .. slot, ...)
    if not again then return end
    for i, score in ipairs(redis.call('HMGET', base .. 'r' .. slot, ...)) do
      local member = select(i, ...)
      if score then redis.call('ZADD', base .. 'w' .. slot, 'LT', score, member) end
    end
    redis.call('HDEL', base .. 'r' .. slot, ...)
  end)
  if #members > 0 then redis.call('HINCRBY', base .. 'k', slot, -#members) end
end
`;

/** KEYS: n. ARGV: channel, message, then slot, 1 for urgent, how many, and the members, ... */
export const QUEUE_MARK: RedisScript = {
  name: "slipwayQueueMark",
  keys: 1,
  lua: `${NOW}${QUEUE}local new, i = 0, 3
while i <= #ARGV do
  local slot, urgent, last = ARGV[i], ARGV[i + 1] == '1', i + 2 + ARGV[i + 2]
  local score, claimed = urgent and now - ahead or now, redis.call('EXISTS', base .. 't' .. ARGV[i]) == 1
  for from = i + 3, last, 1000 do
    local to, list = math.min(from + 999, last), {}
    local held = claimed and redis.call('HMGET', base .. 't' .. slot, unpack(ARGV, from, to)) or {}
    for j = from, to do
      if held[j - from + 1] then
        local before = redis.call('HGET', base .. 'r' .. slot, ARGV[j])
        if not before or (urgent and tonumber(before) > 0) then redis.call('HSET', base .. 'r' .. slot, ARGV[j], score) end
      else
        list[#list + 1] = score
        list[#list + 1] = ARGV[j]
      end
    end
    if #list > 0 then new = new + redis.call('ZADD', base .. 'w' .. slot, 'LT', unpack(list)) end
  end
  i = last + 1
end
redis.call('PUBLISH', ARGV[1], ARGV[2])
return new`,
};

/**
 * KEYS: n. ARGV: limit, lease, slots. Members whose lease ran out wait again since their first mark. Answers the token, how many ran out, the
 * time, then of each slot its number and each member with its score.
 */
export const QUEUE_CLAIM: RedisScript = {
  name: "slipwayQueueClaim",
  keys: 1,
  lua: `${NOW}${QUEUE}local limit, token, records, expired = tonumber(ARGV[1]), nil, {}, 0
for _, record in ipairs(redis.call('ZRANGEBYSCORE', base .. 'c', '-inf', now, 'LIMIT', 0, 5)) do
  for _, part in ipairs(slots_of(record)) do
    local slot, picked, left = part[1], part[2], {}
    for i, owner in ipairs(owners(slot, every_other(picked))) do
      if owner == record then
        redis.call('ZADD', base .. 'w' .. slot, 'LT', picked[i * 2], picked[i * 2 - 1])
        left[#left + 1] = picked[i * 2 - 1]
      end
    end
    done(slot, left)
    expired = expired + #left
  end
  forget(record)
end
local function take(slot, count)
  local picked = redis.call('ZPOPMIN', base .. 'w' .. slot, count)
  if #picked == 0 then return 0 end
  token = token or tostring(redis.call('INCR', KEYS[1]))
  local owned = {}
  for i = 1, #picked, 2 do owned[i], owned[i + 1] = picked[i], token end
  each(owned, 2000, function(...) redis.call('HSET', base .. 't' .. slot, ...) end)
  redis.call('HINCRBY', base .. 'k', slot, #picked / 2)
  records[#records + 1] = {slot, picked}
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
if token then
  redis.call('SET', base .. 'b' .. token, cmsgpack.pack(records))
  redis.call('ZADD', base .. 'c', now + ARGV[2], token)
end
return {token or '0', expired, now, records}`,
};

/** KEYS: n. ARGV: token. Of a whole claim; -1 when parts of it went other ways. */
export const QUEUE_COMPLETE: RedisScript = {
  name: "slipwayQueueComplete",
  keys: 1,
  lua: `${QUEUE}local token = ARGV[1]
if redis.call('EXISTS', base .. 'p' .. token) == 1 then return -1 end
if not redis.call('ZSCORE', base .. 'c', token) then return 0 end
for _, part in ipairs(slots_of(token)) do done(part[1], every_other(part[2])) end
forget(token)
return 1`,
};

const THEIRS = `local token, theirs = ARGV[1], {}
local i = from
while i <= #ARGV do
  local slot, members = ARGV[i], {unpack(ARGV, i + 2, i + 1 + ARGV[i + 1])}
  local left = {}
  for j, owner in ipairs(owners(slot, members)) do
    if owner and string.match(owner, '^%d+') == token then left[#left + 1] = members[j] end
  end
  theirs[#theirs + 1] = {slot, left}
  i = i + 2 + ARGV[i + 1]
end
redis.call('SET', base .. 'p' .. token, 1, 'PX', 86400000)
`;

/** KEYS: n. ARGV: token, then slot, how many, and the members, ... */
export const QUEUE_COMPLETE_SOME: RedisScript = {
  name: "slipwayQueueCompleteSome",
  keys: 1,
  lua: `${QUEUE}local from = 2
${THEIRS}for _, part in ipairs(theirs) do done(part[1], part[2]) end
return 1`,
};

/** KEYS: n. ARGV: token, lease. Of a whole claim; -1 when parts of it went other ways. */
export const QUEUE_EXTEND: RedisScript = {
  name: "slipwayQueueExtend",
  keys: 1,
  lua: `${NOW}${QUEUE}if redis.call('EXISTS', base .. 'p' .. ARGV[1]) == 1 then return -1 end
redis.call('ZADD', base .. 'c', 'XX', now + ARGV[2], ARGV[1])
return 1`,
};

/** KEYS: n. ARGV: token, lease, then slot, how many, and the members, ... They get a record of their own. */
export const QUEUE_EXTEND_SOME: RedisScript = {
  name: "slipwayQueueExtendSome",
  keys: 1,
  lua: `${NOW}${QUEUE}local from = 3
${THEIRS}local record, parts, scores, seen = token .. '.' .. redis.call('INCR', KEYS[1]), {}, {}, {}
for _, part in ipairs(theirs) do
  for _, owner in ipairs(owners(part[1], part[2])) do
    for _, old in ipairs(seen[owner] and {} or slots_of(owner)) do
      for j = 1, #old[2], 2 do scores[old[1] .. '/' .. old[2][j]] = old[2][j + 1] end
    end
    seen[owner] = true
  end
end
for _, part in ipairs(theirs) do
  local slot, members, picked = part[1], part[2], {}
  for _, member in ipairs(members) do
    picked[#picked + 1] = member
    picked[#picked + 1] = scores[slot .. '/' .. member] or tostring(now)
    redis.call('HSET', base .. 't' .. slot, member, record)
  end
  if #picked > 0 then parts[#parts + 1] = {slot, picked} end
end
if #parts > 0 then
  redis.call('SET', base .. 'b' .. record, cmsgpack.pack(parts))
  redis.call('ZADD', base .. 'c', now + ARGV[2], record)
end
return 1`,
};

/** KEYS: n. ARGV: slots. Answers depth and age of each. */
export const QUEUE_STATES: RedisScript = {
  name: "slipwayQueueStates",
  keys: 1,
  lua: `${NOW}${QUEUE}local answer, oldest = {}, {}
for _, record in ipairs(redis.call('ZRANGEBYSCORE', base .. 'c', '-inf', now, 'LIMIT', 0, 5)) do
  for _, part in ipairs(slots_of(record)) do
    for i, owner in ipairs(owners(part[1], every_other(part[2]))) do
      if owner == record then
        local score = tonumber(part[2][i * 2])
        oldest[part[1]] = math.min(oldest[part[1]] or now, score < 0 and score + ahead or score)
      end
    end
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
  QUEUE_COMPLETE_SOME,
  QUEUE_EXTEND,
  QUEUE_EXTEND_SOME,
  QUEUE_STATES,
];
