"""From texts to what a network is shown: ids of tokens, in training, in evaluation and when it serves."""

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.utils.data import Dataset


class Tokens(Dataset[Tensor]):
    """Texts as `read` makes ids of their first `max_tokens` tokens.

    An index is a list of texts and a seed, as for `pixels.Views`; no chance has a part in it.
    """

    def __init__(self, read: Callable[[Sequence[str], int], Tensor], max_tokens: int) -> None:
        self._read, self._max_tokens = read, max_tokens

    def __getitem__(self, index: tuple[Sequence[str], int]) -> Tensor:
        return self._read(index[0], self._max_tokens)
