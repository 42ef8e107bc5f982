"""Lets time pass for the cooldowns in a Redis, whose own clock no test can move."""

from redis.asyncio import Redis


async def age_cooldown(client: Redis, key: str, seconds: float) -> None:
    """As if so much time had passed since all that was kept of the deployment."""
    microseconds = int(seconds * 1e6)
    state, places = f"llmyard:cooldown:{{{key}}}", f"llmyard:cooldown:{{{key}}}:ramp"
    for moment in ("ends_at", "probe_ends_at", "ramp_at"):
        if int(await client.hget(state, moment) or 0):
            await client.hincrby(state, moment, -microseconds)
    for token in await client.zrange(places, 0, -1):
        await client.zincrby(places, -microseconds, token)
