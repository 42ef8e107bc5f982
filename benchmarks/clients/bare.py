"""The floor: aiohttp and nothing else."""

import asyncio
import json

import aiohttp
from measure import measure, read_arguments, report


async def main() -> None:
    base_url, calls, in_flight = read_arguments()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(number: int) -> str:
            body = {"model": "m", "messages": [{"role": "user", "content": f"question {number}"}], "temperature": 0}
            data = json.dumps(body).encode()
            headers = {"Authorization": "Bearer key", "Content-Type": "application/json"}
            async with session.post(f"{base_url}/chat/completions", data=data, headers=headers) as response:
                answer: str = json.loads(await response.read())["choices"][0]["message"]["content"]
                return answer

        report(await measure(ask, calls, in_flight))


asyncio.run(main())
