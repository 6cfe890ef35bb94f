/**
 * What must happen at once in Redis. Every script touches keys of one hash tag only, takes the time from the server, and is sent by its
 * digest.
 *
 * A slot of a claim queue has four keys: `w` waiting members by the time of their mark, `c` claimed ones by the end of their lease,
 * `t` the claim of each as `token:time of mark`, `r` the time at which a claimed one was marked again; and `n`, the last token.
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

/** KEYS: w, c, r. ARGV: members. */
export const QUEUE_MARK: RedisScript = {
  name: "slipwayQueueMark",
  keys: 3,
  lua: `${NOW}for i = 1, #ARGV do
  if redis.call('ZSCORE', KEYS[2], ARGV[i]) then redis.call('HSETNX', KEYS[3], ARGV[i], now)
  else redis.call('ZADD', KEYS[1], 'NX', now, ARGV[i]) end
end
return #ARGV`,
};

/** KEYS: w, c, t, r, n. ARGV: limit, lease. Members whose lease ran out wait again since their first mark. */
export const QUEUE_CLAIM: RedisScript = {
  name: "slipwayQueueClaim",
  keys: 5,
  lua: `${NOW}local expired = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, member in ipairs(expired) do
  local claim = redis.call('HGET', KEYS[3], member) or ('0:' .. now)
  redis.call('ZREM', KEYS[2], member)
  redis.call('HDEL', KEYS[3], member)
  redis.call('HDEL', KEYS[4], member)
  redis.call('ZADD', KEYS[1], string.match(claim, ':(.*)'), member)
end
local picked = redis.call('ZPOPMIN', KEYS[1], ARGV[1])
if #picked == 0 then return {} end
local token = redis.call('INCR', KEYS[5])
local answer = { tostring(token) }
for i = 1, #picked, 2 do
  redis.call('ZADD', KEYS[2], now + ARGV[2], picked[i])
  redis.call('HSET', KEYS[3], picked[i], token .. ':' .. picked[i + 1])
  answer[#answer + 1] = picked[i]
end
return answer`,
};

/** KEYS: w, c, t, r. ARGV: member, token, member, token ... */
export const QUEUE_COMPLETE: RedisScript = {
  name: "slipwayQueueComplete",
  keys: 4,
  lua: `for i = 1, #ARGV, 2 do
  local claim = redis.call('HGET', KEYS[3], ARGV[i])
  if claim and string.match(claim, '^(.-):') == ARGV[i + 1] then
    redis.call('ZREM', KEYS[2], ARGV[i])
    redis.call('HDEL', KEYS[3], ARGV[i])
    local again = redis.call('HGET', KEYS[4], ARGV[i])
    if again then
      redis.call('HDEL', KEYS[4], ARGV[i])
      redis.call('ZADD', KEYS[1], again, ARGV[i])
    end
  end
end
return 1`,
};

/** KEYS: c, t. ARGV: lease, member, token ... */
export const QUEUE_EXTEND: RedisScript = {
  name: "slipwayQueueExtend",
  keys: 2,
  lua: `${NOW}for i = 2, #ARGV, 2 do
  local claim = redis.call('HGET', KEYS[2], ARGV[i])
  if claim and string.match(claim, '^(.-):') == ARGV[i + 1] then redis.call('ZADD', KEYS[1], 'XX', now + ARGV[1], ARGV[i]) end
end
return 1`,
};

/** KEYS: w, c. */
export const QUEUE_DEPTH: RedisScript = {
  name: "slipwayQueueDepth",
  keys: 2,
  lua: `return redis.call('ZCARD', KEYS[1]) + redis.call('ZCARD', KEYS[2])`,
};

/** KEYS: w, c, t. */
export const QUEUE_OLDEST: RedisScript = {
  name: "slipwayQueueOldest",
  keys: 3,
  lua: `${NOW}local oldest = tonumber(redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] or now)
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 1000)) do
  local claim = redis.call('HGET', KEYS[3], member)
  if claim then oldest = math.min(oldest, tonumber(string.match(claim, ':(.*)'))) end
end
return now - oldest`,
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
  QUEUE_DEPTH,
  QUEUE_OLDEST,
];
