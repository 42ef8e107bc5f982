"""LiteLLM's Router over two deployments, the faster first: what a peer does for the same call."""

import asyncio

from litellm import Router
from measure import measure, read_arguments, report


async def main() -> None:
    base_url, calls, in_flight = read_arguments()
    parameters = {"model": "openai/m", "api_base": base_url, "api_key": "key"}
    router = Router(
        model_list=[{"model_name": "quality", "litellm_params": parameters} for _ in range(2)],
        routing_strategy="latency-based-routing",
        num_retries=2,
    )

    async def ask(number: int) -> str:
        messages = [{"role": "user", "content": f"question {number}"}]
        response = await router.acompletion(model="quality", messages=messages, temperature=0)
        answer: str = response.choices[0].message.content
        return answer

    report(await measure(ask, calls, in_flight))


asyncio.run(main())
