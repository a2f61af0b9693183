"""Let the model call a function, show each step, and print the answer."""

import trio

import trio_minillm as llm

FORECASTS = {"Paris": "21 degrees, sunny", "Oslo": "3 degrees, snow"}


async def weather(city: str) -> str:
    """Get the current weather in a city."""
    await trio.sleep(0.1)  # a real one would ask a server
    return FORECASTS.get(city, "no forecast for this city")


async def main() -> None:
    async with (
        llm.open_local_model(tools=True) as model,
        llm.open_client() as client,
        client.run_tools(
            model,
            "What is the weather in Paris?",
            tools=[weather],
            tool_choice="required",  # this small model calls a tool only if it must
            max_steps=5,
            max_tokens=200,
            temperature=0,
        ) as run,
    ):
        async for step in run:
            if isinstance(step, llm.ToolCall):
                print(f"{step.name}({step.arguments})")
            elif isinstance(step, llm.ToolResult):
                print(f"-> {step.text}")
            else:
                print(step.delta, end="", flush=True)
    print()


trio.run(main)
