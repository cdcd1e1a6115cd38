"""Text encoders of the transformers library as backbones: BERT, RoBERTa, MiniLM, GPT-2 and their like."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ray_app.models.backbones import Reader, UnknownBackboneError

Pooling = Literal["first", "mean", "last"]
"""Whose vector is that of a text: the first token's, all tokens', the last token's."""
PADDING = -1
"""After the end of a text. No id of a tokenizer, since some have none for it."""
_STATED: dict[str, Pooling] = {"pooling_mode_cls_token": "first", "pooling_mode_lasttoken": "last"}
_VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model")


class Reading(nn.Module):
    """An encoder, and which of its outputs is the vector of a text."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        encoder.config.use_cache = False  # nothing is written on
        self.encoder = encoder
        self.pooling: Pooling = "mean"

    def forward(self, tokens: Tensor) -> Tensor:
        """Vectors `[n, dim]` of ids `[n, tokens]`."""
        mask = tokens != PADDING
        hidden = self.encoder(input_ids=tokens.clamp_min(0), attention_mask=mask.long()).last_hidden_state
        return pooled(hidden, mask, self.pooling)


def pooled(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Vectors `[n, dim]` of texts whose tokens `[n, tokens, dim]` begin at the left, where the mask says so."""
    if pooling == "first":
        return hidden[:, 0]
    if pooling == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


def stated_pooling(folder: Path) -> Pooling | None:
    """What the folder says, if it says anything, as sentence-transformers write it."""
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return None
    given: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return next((pooling for name, pooling in _STATED.items() if given.get(name)), "mean")


def pooling_of(encoder: Any, folder: Path) -> Pooling:
    """As the folder says; else the last token where only that has read the whole text, as in GPT-2, else the mean."""
    return stated_pooling(folder) or ("last" if _reads_forward(encoder) else "mean")


def reader_in(folder: Path, encoder: Any) -> Reader:
    """The tokenizer of the folder.

    Raises:
        UnknownBackboneError: there is none that can be read, or it is that of another network.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415  an extra, and seconds

    if not any(True for name in _VOCABULARIES for _ in folder.glob(name)):
        raise UnknownBackboneError(f"the folder has no tokenizer: none of {', '.join(_VOCABULARIES)}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # each tokenizer has its own ways to fail
        line = str(error).strip().partition("\n")[0]
        raise UnknownBackboneError(f"its tokenizer cannot be read: {line}") from error
    known = encoder.get_input_embeddings().num_embeddings
    if len(tokenizer) > known:
        raise UnknownBackboneError(f"its tokenizer has {len(tokenizer):,} tokens, and the network knows {known:,}")
    return _Tokens(tokenizer)


class _Tokens:
    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._nothing = next((id_ for id_ in (tokenizer.unk_token_id, tokenizer.eos_token_id) if id_ is not None), 0)
        """Stands for a text of which the tokenizer leaves nothing."""

    def __call__(self, texts: Sequence[str], max_tokens: int) -> Tensor:
        rows = self._tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]
        return pad_sequence([torch.tensor(row or [self._nothing]) for row in rows], True, PADDING)


def example_tokens(length: int = 2) -> Tensor:
    """A text of so many tokens."""
    return torch.zeros(1, length, dtype=torch.long)


@torch.no_grad()
def _reads_forward(encoder: Any) -> bool:
    """Whether what follows a token changes nothing of its vector."""
    training = encoder.training
    first = encoder.eval()(input_ids=torch.tensor([[0, 1], [0, 2]])).last_hidden_state[:, 0]
    encoder.train(training)
    return torch.allclose(first[0], first[1])
