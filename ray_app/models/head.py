"""The head of a sequence model: what is new for a catalogue."""

import torch
from torch import nn

from ray_app.models.likeness import Likeness
from ray_app.models.repeats import Repeats
from ray_app.models.transformer import SequenceShape


class Head(nn.Module):
    """What the target adds: items and labels new to the backbone, a bias for every item, repeat habits, likeness."""

    def __init__(self, shape: SequenceShape, num_new: int, num_items: int, new_labels: int = 0) -> None:
        super().__init__()
        self.items = nn.Embedding(num_new, shape.dim)
        self.labels = nn.Embedding(new_labels, shape.dim) if shape.labels else None
        self.bias = nn.Parameter(torch.zeros(num_items))
        self.repeats = Repeats(shape.dim) if shape.repeats else None
        self.likeness = Likeness(shape.dim) if shape.likeness_dim else None
