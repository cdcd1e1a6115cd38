"""A classifier of pictures or texts: a pretrained backbone and new layers on it."""

import torch
from torch import Tensor, nn

from ray_app.models.backbones import Backbone
from ray_app.models.depthwise import FastDepthwise


class Head(nn.Module):
    """New layers: vectors `[n, dim]` (conv: maps) -> logits `[n, classes]`.

    Vectors are brought to mean 0 and variance 1 first, by what training has seen of them, so that one rate suits the
    outputs of any backbone (as He et al. 2022, arXiv 2111.06377, A.1, probe theirs).
    """

    def __init__(self, kind: str, dim: int, num_classes: int, hidden: int, dropout: float) -> None:
        super().__init__()
        wide = hidden if kind != "linear" else dim
        self.conv = nn.Conv2d(dim, hidden, 3, padding=1, bias=False) if kind == "conv" else None
        self.hidden = nn.Linear(dim, hidden) if kind == "mlp" else None
        self.norm = nn.BatchNorm1d(wide if kind == "conv" else dim, affine=False)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(wide, num_classes)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    @torch.no_grad()
    def see(self, vectors: Tensor) -> None:
        """Norm by the mean and variance of all these, where training on batches would come near them in many steps."""
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        self.norm.running_mean.copy_(vectors.mean(0))
        self.norm.running_var.copy_(vectors.var(0))

    def forward(self, features: Tensor) -> Tensor:
        """Logits in float32."""
        if self.conv is not None:
            features = self.conv(features).mean((2, 3))
        features = self.norm(features.float())
        if self.conv is not None:
            features = torch.relu(features)
        if self.hidden is not None:
            features = torch.nn.functional.gelu(self.hidden(features))
        logits: Tensor = self.out(self.dropout(features))
        return logits.float()


class Classifier(nn.Module):
    """What the backbone is shown -> logits `[n, classes]`."""

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        with FastDepthwise():
            features = self.backbone(inputs)
        logits: Tensor = self.head(features)
        return logits
