"""A tokenizer in a local folder, in Hugging Face's format, that counts words.

The tools want one, and no hub is asked. The server's answers are words, so that all count alike.
"""

from __future__ import annotations

import json
from pathlib import Path

WORDS = ["word", *(f"w{number}" for number in range(4000))]
"""A word that is not among them is counted as the first."""

MODEL = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": {"type": "WhitespaceSplit"},
    "post_processor": None,
    "decoder": None,
    "model": {
        "type": "WordLevel",
        "vocab": {word: number for number, word in enumerate(WORDS)},
        "unk_token": WORDS[0],
    },
}

CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_max_length": 100_000,
    "chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}",
}


def write_tokenizer(folder: Path) -> Path:
    """Write the tokenizer's files into this folder, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(MODEL))
    (folder / "tokenizer_config.json").write_text(json.dumps(CONFIG))
    return folder
