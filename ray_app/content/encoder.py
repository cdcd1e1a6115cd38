"""Texts -> vectors of length 1, by a pretrained encoder of the transformers library."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ray_app.config import fingerprint
from ray_app.content.model_folder import hashes_of, model_folder
from ray_app.content_config import ContentConfig
from ray_app.errors import ConfigError, DataError
from ray_app.models.texts import Pooling, pooled, stated_pooling
from ray_app.storage import Storage

TOKENS_PER_BATCH = 2048
"""Fits a core's cache: batches of 1,024 and of 8,192 tokens took a sixth longer."""
_VERSION = 1
"""Raise it when the same files give other vectors."""


class TextEncoder:
    """An encoder in memory."""

    def __init__(self, folder: Path, max_tokens: int, device: torch.device) -> None:
        # A second of every process that never encodes, and an extra that it need not have.
        from transformers import AutoModel, AutoTokenizer  # noqa: PLC0415
        from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415

        disable_progress_bar()  # type: ignore[no-untyped-call]
        self._device = device
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModel.from_pretrained(folder, use_safetensors=True, dtype=_fast_dtype(device))
        self._model = model.to(device).eval()
        self._max_tokens = min(max_tokens, getattr(model.config, "max_position_embeddings", max_tokens))
        self._pooling: Pooling = "first" if stated_pooling(folder) == "first" else "mean"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float16]:
        """Vectors `[texts, dim]`, the mean over tokens (or the first, where the encoder's pooling says so)."""
        tokens: list[list[int]] = self._tokenizer(list(texts), truncation=True, max_length=self._max_tokens)[
            "input_ids"
        ]
        lengths = np.array([len(row) for row in tokens])
        vectors: list[Tensor] = []
        rows = np.argsort(-lengths, kind="stable")  # like lengths together: hardly any padding
        start = 0
        while start < len(rows):
            batch = rows[start : start + max(1, TOKENS_PER_BATCH // lengths[rows[start]])]
            vectors.append(self._vectors([tokens[row] for row in batch]))
            start += len(batch)
        found = np.empty((len(texts), self._model.config.hidden_size), np.float16)
        found[rows] = torch.cat(vectors).numpy()
        return found

    @torch.inference_mode()
    def _vectors(self, tokens: list[list[int]]) -> Tensor:
        rows = [torch.tensor(row, device=self._device) for row in tokens]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        return functional.normalize(pooled(hidden, mask, self._pooling), dim=1).half().cpu()


def encoder_folder(storage: Storage, content: ContentConfig) -> AbstractContextManager[Path]:
    """The files of the configured encoder in a local folder; raises as `model_folder`."""
    assert content.text is not None
    return model_folder(storage, content.text, "content.text")


def encoder_key(folder: Path, max_tokens: int) -> str:
    """The same for the same files and settings, wherever they lie."""
    return fingerprint(_VERSION, hashes_of(folder), max_tokens)


def load_encoder(folder: Path, content: ContentConfig, device: torch.device) -> TextEncoder:
    """The encoder in `folder`.

    Raises:
        ConfigError: transformers is not installed.
        DataError: the folder holds no encoder that it can read.
    """
    try:
        return TextEncoder(folder, content.max_tokens, device)
    except ImportError as error:
        raise ConfigError(
            [f"content.text: needs the transformers library ({error}): pip install 'ray-retail-finetune[text]'"]
        ) from error
    except (OSError, ValueError, KeyError) as error:
        line = str(error).strip().partition("\n")[0]
        raise DataError(f"{content.text}: cannot be read as a text encoder with safetensors weights: {line}") from error


def _fast_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the hardware multiplies it: twice as fast, vectors with a cosine above .999 to those of fp32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    can: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.bfloat16 if can.get("avx512_bf16") or can.get("amx_bf16") else torch.float32
