"""Stream LLM completions under Trio; nothing outlives its block, and every stream has one outcome.

>>> import trio_minillm as llm
>>> model = llm.compatible("qwen3", base_url="http://127.0.0.1:8080/v1")
>>> model
<Model compatible:qwen3>
"""

from typing import TYPE_CHECKING

from ._accounting.ledger import Ledger
from ._accounting.record import CostRecord
from ._accounting.totals import Totals
from ._client import Client, open_client
from ._http.pool import Statistics
from ._http.transport import TrioTransport
from ._protocol.sse import SSEDecoder, SSEEvent
from ._stream.tracked import Collected
from ._toolkit.streams import StreamingCompletion, TrackedStream
from ._types.chunks import Block, StreamChunk, ToolCallDelta
from ._types.cost import CostInfo, CostResolution, PriceTier, TokenPrice
from ._types.credentials import RequestToSign
from ._types.errors import (
    BudgetExceeded,
    ConnectionCut,
    ConnectTimeout,
    CredentialsError,
    EndedEarly,
    ErrorInfo,
    LimitExceeded,
    MiniLLMError,
    ProtocolError,
    ProviderError,
    RefusedError,
    RefusedUntil,
    RetriesExhausted,
    SendError,
    SendTimeout,
    StreamError,
    StreamTimeout,
    StreamTruncated,
)
from ._types.later import loader
from ._types.messages import (
    AudioPart,
    DocumentPart,
    ImagePart,
    Message,
    OpaquePart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    TokensPart,
    ToolCall,
    ToolResult,
    assistant,
    audio,
    developer,
    document,
    image,
    system,
    text,
    tool_result,
    user,
)
from ._types.openai_messages import message_of
from ._types.options import Bounds, Limits, Retry, Timeouts
from ._types.params import JSONSchema, Params, Reasoning
from ._types.response import Choice, CompletionResponse, Outcome, Timings
from ._types.tools import Tool, tool
from ._types.usage import Usage
from ._version import __version__
from .providers import Model, Provider, Request, SettlementRequest
from .providers._models import (
    anthropic,
    compatible,
    gemini,
    openai,
    openai_responses,
    openrouter,
    text_completions,
)

if TYPE_CHECKING:
    from ._accounting.estimate import CostEstimate, estimate
    from ._accounting.known_prices import known_price
    from ._accounting.ledger_file import JSONLLedger
    from ._toolkit.broadcast import Broadcast
    from ._toolkit.listener import Listener, ListenerDetached
    from ._toolkit.sse_out import sse_of
    from ._types.echo import Echo, split_echo
    from .batch import Batch, BatchRequest, BatchResult, ResponseCache
    from .local import LocalModelError, LocalServer, open_local_model, open_local_server
else:
    # Most programs never use these names: they are loaded at their first use, to keep the import
    # of the package short.
    _LATER = {
        "Batch": "batch",
        "BatchRequest": "batch",
        "BatchResult": "batch",
        "Broadcast": "_toolkit.broadcast",
        "CostEstimate": "_accounting.estimate",
        "Echo": "_types.echo",
        "JSONLLedger": "_accounting.ledger_file",
        "Listener": "_toolkit.listener",
        "ListenerDetached": "_toolkit.listener",
        "LocalModelError": "local",
        "LocalServer": "local",
        "ResponseCache": "batch",
        "estimate": "_accounting.estimate",
        "known_price": "_accounting.known_prices",
        "open_local_model": "local",
        "open_local_server": "local",
        "split_echo": "_types.echo",
        "sse_of": "_toolkit.sse_out",
    }

    __getattr__, __dir__ = loader(__name__, _LATER)


__all__ = [
    "AudioPart",
    "Batch",
    "BatchRequest",
    "BatchResult",
    "Block",
    "Bounds",
    "Broadcast",
    "BudgetExceeded",
    "Choice",
    "Client",
    "Collected",
    "CompletionResponse",
    "ConnectTimeout",
    "ConnectionCut",
    "CostEstimate",
    "CostInfo",
    "CostRecord",
    "CostResolution",
    "CredentialsError",
    "DocumentPart",
    "Echo",
    "EndedEarly",
    "ErrorInfo",
    "ImagePart",
    "JSONLLedger",
    "JSONSchema",
    "Ledger",
    "LimitExceeded",
    "Limits",
    "Listener",
    "ListenerDetached",
    "LocalModelError",
    "LocalServer",
    "Message",
    "MiniLLMError",
    "Model",
    "OpaquePart",
    "Outcome",
    "Params",
    "PriceTier",
    "ProtocolError",
    "Provider",
    "ProviderError",
    "Reasoning",
    "ReasoningPart",
    "RefusalPart",
    "RefusedError",
    "RefusedUntil",
    "Request",
    "RequestToSign",
    "ResponseCache",
    "RetriesExhausted",
    "Retry",
    "SSEDecoder",
    "SSEEvent",
    "SendError",
    "SendTimeout",
    "SettlementRequest",
    "Statistics",
    "StreamChunk",
    "StreamError",
    "StreamTimeout",
    "StreamTruncated",
    "StreamingCompletion",
    "TextPart",
    "Timeouts",
    "Timings",
    "TokenPrice",
    "TokensPart",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolResult",
    "Totals",
    "TrackedStream",
    "TrioTransport",
    "Usage",
    "__version__",
    "anthropic",
    "assistant",
    "audio",
    "compatible",
    "developer",
    "document",
    "estimate",
    "gemini",
    "image",
    "known_price",
    "message_of",
    "open_client",
    "open_local_model",
    "open_local_server",
    "openai",
    "openai_responses",
    "openrouter",
    "split_echo",
    "sse_of",
    "system",
    "text",
    "text_completions",
    "tool",
    "tool_result",
    "user",
]
