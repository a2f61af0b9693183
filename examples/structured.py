"""Get an answer as a value of a Python type."""

from typing import Annotated, Literal

import msgspec
import trio

import trio_minillm as llm

Short = Annotated[str, msgspec.Meta(max_length=40)]


class Review(msgspec.Struct):
    product: Short
    mood: Literal["good", "bad", "mixed"]
    stars: Annotated[int, msgspec.Meta(ge=1, le=5)]


PROMPT = """Describe this review as JSON with product, mood and stars:
The teapot is beautiful and pours well, I use it every day. Five stars."""


async def main() -> None:
    async with llm.open_local_model() as model, llm.open_client() as client:
        try:
            response = await client.complete(
                model,
                PROMPT,
                response_format=Review,
                retries_invalid=1,
                max_tokens=100,
                temperature=0,
            )
        except llm.InvalidAnswer as error:  # cut off at max_tokens, or not enforced by the server
            print(f"not a review: {error}\n{error.text}")
        else:
            review = response.value  # a Review, for type checkers too
            print(f"{review.product}: {review.mood}, {review.stars} stars")


trio.run(main)
