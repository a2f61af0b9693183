"""Add a wire format in one class: llama.cpp's own ``/completion``."""

from typing import Any

import msgspec
import trio

import trio_minillm as llm
from trio_minillm.local import open_local_server


class Event(msgspec.Struct):
    content: str
    stop: bool = False
    stop_type: str = "none"
    tokens_evaluated: int | None = None
    tokens_predicted: int | None = None


class Completion(llm.Provider):
    def endpoint_url(self, model: llm.Model) -> str:
        return f"{model.base_url}/completion"

    def auth_headers(self, model: llm.Model) -> dict[str, str]:
        return {"authorization": f"Bearer {model.api_key}"}

    def build_request(self, request: llm.Request) -> dict[str, Any]:
        if other := request.params.keys() - {"max_tokens"}:
            raise ValueError(f"not a parameter of this format: {', '.join(sorted(other))}")
        prompt = "\n".join(message.text for message in request.messages)
        return {"prompt": prompt, "stream": True, "n_predict": request.params.get("max_tokens", 64)}

    def parse_chunk(self, data: bytes) -> llm.StreamChunk:
        event = msgspec.json.decode(data, type=Event)
        given, made = event.tokens_evaluated, event.tokens_predicted
        usage = llm.Usage(uncached_input_tokens=given, completion_tokens=made)
        reason = event.stop_type if event.stop else None
        return llm.StreamChunk(event.content, finish_reason=reason, usage=usage if reason else None)


async def main() -> None:
    async with open_local_server() as server, llm.open_client() as client:
        url, key = server.base_url, server.model().api_key
        model = llm.Model(name=server.name, provider=Completion(), base_url=url, api_key=key)
        response = await client.complete(model, "The sea is salty because", max_tokens=30)
    print(response.text.strip(), f"({response.outcome}: {response.finish_reason})")


trio.run(main)
