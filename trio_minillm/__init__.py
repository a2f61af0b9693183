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
from ._types.response import (
    Choice,
    CompletionResponse,
    InvalidAnswer,
    MismatchedAnswer,
    Outcome,
    Timings,
)
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
    from ._http.transport import TrioTransport
    from ._toolkit.choices.choice import ModelChoice, ModelsExhausted, fallback, first_of
    from ._toolkit.listeners.broadcast import Broadcast
    from ._toolkit.listeners.listener import Listener, ListenerDetached
    from ._toolkit.listeners.sse_out import sse_of
    from ._toolkit.observers.observing import AttemptEnd, ObservedAttempt, Observer
    from ._toolkit.observers.otel import opentelemetry_observer
    from ._toolkit.tools.tool_loop import ToolLoopError, ToolRun
    from ._toolkit.values.broken import BrokenJSON, CutJSON, UnexpectedValue
    from ._toolkit.values.calls import StreamedCall
    from ._toolkit.values.partial import Partial
    from ._toolkit.values.shapes import Field
    from ._types.echo import Echo, split_echo
    from .batch import Batch, BatchRequest, BatchResult, ResponseCache
    from .local import LocalModelError, LocalServer, open_local_model, open_local_server
else:
    # Most programs never use these names: they are loaded at their first use, to keep the import
    # of the package short. `TrioTransport` needs httpx, which takes half as long as all the rest.
    _LATER = {
        "AttemptEnd": "_toolkit.observers.observing",
        "Batch": "batch",
        "BatchRequest": "batch",
        "BatchResult": "batch",
        "Broadcast": "_toolkit.listeners.broadcast",
        "BrokenJSON": "_toolkit.values.broken",
        "CostEstimate": "_accounting.estimate",
        "CutJSON": "_toolkit.values.broken",
        "Echo": "_types.echo",
        "Field": "_toolkit.values.shapes",
        "JSONLLedger": "_accounting.ledger_file",
        "Listener": "_toolkit.listeners.listener",
        "ListenerDetached": "_toolkit.listeners.listener",
        "LocalModelError": "local",
        "LocalServer": "local",
        "ModelChoice": "_toolkit.choices.choice",
        "ModelsExhausted": "_toolkit.choices.choice",
        "ObservedAttempt": "_toolkit.observers.observing",
        "Observer": "_toolkit.observers.observing",
        "Partial": "_toolkit.values.partial",
        "ResponseCache": "batch",
        "StreamedCall": "_toolkit.values.calls",
        "ToolLoopError": "_toolkit.tools.tool_loop",
        "ToolRun": "_toolkit.tools.tool_loop",
        "TrioTransport": "_http.transport",
        "UnexpectedValue": "_toolkit.values.broken",
        "estimate": "_accounting.estimate",
        "fallback": "_toolkit.choices.choice",
        "first_of": "_toolkit.choices.choice",
        "known_price": "_accounting.known_prices",
        "open_local_model": "local",
        "open_local_server": "local",
        "opentelemetry_observer": "_toolkit.observers.otel",
        "split_echo": "_types.echo",
        "sse_of": "_toolkit.listeners.sse_out",
    }

    __getattr__, __dir__ = loader(__name__, _LATER)


__all__ = [
    "AttemptEnd",
    "AudioPart",
    "Batch",
    "BatchRequest",
    "BatchResult",
    "Block",
    "Bounds",
    "Broadcast",
    "BrokenJSON",
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
    "CutJSON",
    "DocumentPart",
    "Echo",
    "EndedEarly",
    "ErrorInfo",
    "Field",
    "ImagePart",
    "InvalidAnswer",
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
    "MismatchedAnswer",
    "Model",
    "ModelChoice",
    "ModelsExhausted",
    "ObservedAttempt",
    "Observer",
    "OpaquePart",
    "Outcome",
    "Params",
    "Partial",
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
    "StreamedCall",
    "StreamingCompletion",
    "TextPart",
    "Timeouts",
    "Timings",
    "TokenPrice",
    "TokensPart",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolLoopError",
    "ToolResult",
    "ToolRun",
    "Totals",
    "TrackedStream",
    "TrioTransport",
    "UnexpectedValue",
    "Usage",
    "__version__",
    "anthropic",
    "assistant",
    "audio",
    "compatible",
    "developer",
    "document",
    "estimate",
    "fallback",
    "first_of",
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
    "opentelemetry_observer",
    "split_echo",
    "sse_of",
    "system",
    "text",
    "text_completions",
    "tool",
    "tool_result",
    "user",
]
