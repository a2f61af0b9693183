"""Show the fields of an answer while the model writes them."""

import msgspec
import trio

import trio_minillm as llm


class Recipe(msgspec.Struct):
    title: str
    ingredients: list[str]
    method: str


PROMPT = (
    "Write a recipe for pancakes as JSON: title, three ingredients, and the method in one sentence."
)


async def main() -> None:
    async with (
        llm.open_local_model() as model,
        llm.open_client() as client,
        client.stream(
            model, PROMPT, response_format=Recipe, max_tokens=200, temperature=0
        ) as stream,
    ):
        try:
            async for field in stream.fields():
                if field.is_text:
                    print(field.delta, end="\n" if field.done else "", flush=True)
                elif field.done:
                    print(f"{field.name}: {field.value}")
        except llm.BrokenJSON as error:  # cut off at max_tokens, or not enforced by the server
            print(f"\nnot a recipe: {error}")


trio.run(main)
