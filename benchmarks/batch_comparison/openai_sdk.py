import asyncio
import json
import os
import sys

from openai import AsyncOpenAI


async def main(source: str, target: str) -> None:
    client = AsyncOpenAI(base_url=os.environ["BASE_URL"], api_key=os.environ["API_KEY"])
    gate = asyncio.Semaphore(4)

    async def one(request: dict) -> dict:
        messages = [{"role": "user", "content": request["prompt"]}]
        async with gate:
            answer = await client.chat.completions.create(
                model="m", messages=messages, max_tokens=request["max_tokens"]
            )
        return {"key": request["key"], "content": answer.choices[0].message.content}

    with open(source) as lines:
        results = await asyncio.gather(*[one(json.loads(line)) for line in lines])
    with open(target, "w") as out:
        out.writelines(json.dumps(result) + "\n" for result in results)


asyncio.run(main(*sys.argv[1:]))
