"""Let the model call a function, send the result back, and print the answer."""

import msgspec
import trio

import trio_minillm as llm

FORECASTS = {"Paris": "21 degrees, sunny", "Oslo": "3 degrees, snow"}


async def weather(city: str) -> str:
    """Get the current weather in a city."""
    await trio.sleep(0.1)  # a real one would ask a server
    return FORECASTS.get(city, "no forecast for this city")


async def main() -> None:
    tools = {tool.name: tool for tool in [llm.tool(weather)]}
    history = [llm.user("What is the weather in Paris?")]
    # This small model calls a tool only if it must; for larger ones "auto" is enough.
    choice = "required"
    async with llm.open_local_model(tools=True) as model, llm.open_client() as client:
        for _ in range(5):
            response = await client.complete(
                model,
                history,
                tools=list(tools.values()),
                tool_choice=choice,
                max_tokens=200,
                temperature=0,
            )
            history.append(response.to_message())
            if not response.tool_calls:
                break
            for call in response.tool_calls:
                tool = tools.get(call.name)
                try:
                    result = await tool.call(call) if tool else "no such tool"
                    history.append(llm.tool_result(call, result, is_error=tool is None))
                except msgspec.ValidationError as error:  # the arguments are of other types
                    result = str(error)
                    history.append(llm.tool_result(call, result, is_error=True))
                print(f"{call.name}({call.arguments}) -> {result}")
            choice = "auto"
    print(response.text, *response.invalid_tool_calls)  # those of an answer that was cut


trio.run(main)
