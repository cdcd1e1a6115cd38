"""Folders of the transformers library with tiny encoders of random weights, of pictures and of texts."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

SMALL = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "vit": SMALL,
    "deit": SMALL,
    "dinov2": SMALL,
    "clip_vision_model": SMALL,
    "swin": {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
    "convnext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "image_size": 32},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "image_size": 32},
}
_TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TEXT_SETTINGS: dict[str, dict[str, Any]] = {
    "bert": _TEXT | {"max_position_embeddings": 32},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32, "bos_token_id": 0, "eos_token_id": 0},
}


def tiny(family: str, folder: Path) -> Any:
    """A model of the family, saved."""
    return _saved(family, SETTINGS[family], folder)


def tiny_reader(family: str, folder: Path, texts: Iterable[str]) -> Any:
    """A model of texts with its tokenizer, which knows what these texts are made of, saved."""
    make = {"bert": _word_pieces, "gpt2": _byte_pairs}[family]
    tokenizer = make(list(texts))
    tokenizer.save_pretrained(folder)
    return _saved(family, TEXT_SETTINGS[family] | {"vocab_size": len(tokenizer)}, folder)


def _saved(family: str, settings: dict[str, Any], folder: Path) -> Any:
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(4)
    model = AutoModel.from_config(AutoConfig.for_model(family, **settings)).eval()
    model.save_pretrained(folder)
    return model


def _word_pieces(texts: list[str]) -> Any:
    """As BERT has them: lower case, [CLS] before a text and [SEP] after it."""
    from tokenizers.implementations import BertWordPieceTokenizer
    from transformers import PreTrainedTokenizerFast

    made = BertWordPieceTokenizer()
    made.train_from_iterator(texts, vocab_size=200, show_progress=False)
    cls, sep = (made.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    from tokenizers.processors import BertProcessing

    made.post_processor = BertProcessing(("[SEP]", sep), ("[CLS]", cls))
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=made._tokenizer, **names)


def _byte_pairs(texts: list[str]) -> Any:
    """As GPT-2 has them: no token for padding, none before or after a text."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    made = ByteLevelBPETokenizer()
    made.train_from_iterator(texts, vocab_size=400, special_tokens=["<|endoftext|>"], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=made._tokenizer, eos_token="<|endoftext|>")
