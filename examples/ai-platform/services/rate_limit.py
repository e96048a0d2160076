"""A token bucket for each client, kept in redis so that all gateways share it.

The script runs inside redis, whole, with redis's clock: two gateways never count the same token twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from .redis_link import RedisLink

_BUCKET = """
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local saved = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens, at = tonumber(saved[1]) or burst, tonumber(saved[2]) or now
tokens = math.min(burst, tokens + math.max(0, now - at) * rate)
local allowed = 0
if tokens >= 1 then
  tokens, allowed = tokens - 1, 1
end
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', string.format('%.6f', now))
redis.call('EXPIRE', KEYS[1], math.ceil(burst / rate) + 1)
return {allowed, tostring(tokens)}
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request may pass, how many more may, and when the next one may if this one may not."""

    allowed: bool
    remaining: int
    retry_after_seconds: float


async def take(link: RedisLink, client_id: str, per_minute: float, burst: int) -> Verdict:
    """Take a token from the bucket of ``client_id``. Raises Unavailable when redis does not answer."""
    rate = per_minute / 60.0
    async with link.client() as client:
        answer = await client.eval(_BUCKET, 1, f"ai-platform:bucket:{client_id}", str(rate), str(burst))
    allowed, tokens = answer
    left = float(tokens)
    return Verdict(bool(allowed), int(left), 0.0 if allowed else max(0.0, (1.0 - left) / rate))
