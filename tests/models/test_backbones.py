import pytest
import torch
from torch import nn

from ray_app.models.backbones import UnknownBackboneError, WeightsError, build_backbone
from ray_app.models.classifier import Classifier, Head


def network(name: str) -> nn.Module:
    import torchvision

    torch.manual_seed(3)
    settings = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}  # theirs takes a minute
    found: nn.Module = torchvision.models.get_model(name, weights=None, **settings)
    return found.eval()


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_a_backbone_gives_what_its_network_classifies(name: str) -> None:
    whole = network(name)
    backbone = build_backbone(f"torchvision:{name}", whole.state_dict()).eval()
    pictures = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        vectors = backbone(pictures)
        assert vectors.shape == (2, backbone.dim)
        if name != "squeezenet1_1":  # whose classifier is a convolution before the pool
            classifier = [module for module in whole.modules() if isinstance(module, nn.Linear)][-1]
            assert torch.allclose(classifier(vectors), whole(pictures), atol=1e-5)


def test_maps_are_what_the_network_pools() -> None:
    weights = network("resnet18").state_dict()
    vectors, maps = (build_backbone("torchvision:resnet18", weights, maps=maps).eval() for maps in (False, True))
    pictures = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        found = maps(pictures)
        assert found.shape == (2, maps.dim, 2, 2)
        assert torch.allclose(found.mean((2, 3)), vectors(pictures), atol=1e-6)


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v3_small", "timm:convnext_atto", "timm:mobilenetv3_small_050"])
def test_what_lies_behind_a_map_is_kept_and_is_no_parameter(name: str) -> None:
    """Two workers waited for its gradient, and training ended; its names are those of checkpoints of before."""
    torch.manual_seed(0)
    vectors, maps = build_backbone(name).eval(), build_backbone(name, maps=True, side=96).eval()
    maps.load_state_dict(vectors.state_dict())
    behind = {key for key, _ in vectors.named_parameters()} - {key for key, _ in maps.named_parameters()}
    assert behind
    assert behind <= {key for key, _ in maps.named_buffers()}
    pictures = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        before = vectors(pictures)
        assert torch.equal(maps.network(pictures), before)
    maps.train()(pictures).square().mean().backward()
    assert all(value.grad is not None for value in maps.parameters())


@pytest.mark.parametrize(
    ("name", "side"), [("torchvision:inception_v3", 96), ("timm:swin_tiny_patch4_window7_224", 224)]
)
def test_maps_are_of_the_configured_size(name: str, side: int) -> None:
    with pytest.raises(UnknownBackboneError, match=rf"{name}: cannot see pictures of 64 x 64 pixels: \S+"):
        build_backbone(name, maps=True, side=64)
    torch.manual_seed(0)
    maps, vectors = build_backbone(name, maps=True, side=side).eval(), build_backbone(name).eval()
    vectors.load_state_dict(maps.state_dict())
    pictures = torch.rand(2, 3, side, side)
    with torch.no_grad():
        found = maps(pictures)
        assert found.shape[:2] == (2, maps.dim) == (2, vectors.dim)  # channels first, also where timm has them last
        assert torch.allclose(found.mean((2, 3)), vectors(pictures), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("vit_tiny_patch16_dinov3_qkvb", 256),  # without a classifier, as DINOv2, SigLIP and MAE
        ("eva02_tiny_patch14_224", 224),
        ("deit_tiny_distilled_patch16_224", 224),  # with two
        ("repvit_m0_9", 64),
    ],
)
def test_a_network_of_timm_with_no_classifier_or_several_is_whole(name: str, side: int) -> None:
    """A layer of its last block was taken for the classifier and cut out, or one of two classifiers left."""
    import timm

    torch.manual_seed(1)
    whole, headless = timm.create_model(name).eval(), timm.create_model(name, num_classes=0).eval()
    backbone = build_backbone(f"timm:{name}", whole.state_dict()).eval()
    missing, _ = headless.load_state_dict(whole.state_dict(), strict=False)
    assert not missing
    assert set(backbone.network.state_dict()) == set(headless.state_dict())
    pictures = torch.rand(2, 3, side, side)
    with torch.no_grad():
        vectors = backbone(pictures)
        assert vectors.shape == (2, backbone.dim)
        assert torch.equal(vectors, headless(pictures))
    backbone.train()(pictures).square().mean().backward()
    assert all(value.grad is not None for value in backbone.parameters())


def test_a_network_of_timm_takes_weights_by_its_names() -> None:
    import timm

    torch.manual_seed(1)
    whole = timm.create_model("mobilenetv3_small_050", num_classes=7).eval()
    backbone = build_backbone("timm:mobilenetv3_small_050", whole.state_dict()).eval()
    pictures = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(whole.classifier(backbone(pictures)), whole(pictures), atol=1e-5)
    assert backbone.shown.mean == tuple(whole.pretrained_cfg["mean"])


def test_weights_of_another_network_are_told_by_name_and_shape() -> None:
    with pytest.raises(WeightsError) as caught:
        build_backbone("torchvision:resnet18", network("resnet34").state_dict())
    assert "layer1.2.conv1.weight: not a part of this network" in str(caught.value)
    weights = network("resnet18").state_dict()
    weights["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    del weights["bn1.bias"]
    with pytest.raises(WeightsError) as caught:
        build_backbone("torchvision:resnet18", weights)
    assert "bn1.bias: missing" in str(caught.value)
    assert "conv1.weight: [64, 3, 3, 3] where the network has [64, 3, 7, 7]" in str(caught.value)


def test_weights_that_are_not_finite_are_refused() -> None:
    weights = network("resnet18").state_dict()
    weights["layer1.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    with pytest.raises(WeightsError, match=r"layer1\.0\.conv1\.weight: holds numbers that are not finite"):
        build_backbone("torchvision:resnet18", weights)


@pytest.mark.parametrize("name", ["torchvision:resnet51", "timm:no_such_net"])
def test_a_network_that_does_not_exist_is_named(name: str) -> None:
    with pytest.raises(UnknownBackboneError, match=name.partition(":")[2]):
        build_backbone(name)


def test_a_network_without_a_map_has_no_conv_head() -> None:
    with pytest.raises(UnknownBackboneError, match=r"torchvision:vit_b_16: .*conv head"):
        build_backbone("torchvision:vit_b_16", maps=True)


@pytest.mark.parametrize(("kind", "layers"), [("linear", 1), ("mlp", 2), ("conv", 2)])
def test_heads_give_logits(kind: str, layers: int) -> None:
    backbone = build_backbone("torchvision:resnet18", maps=kind == "conv")
    head = Head(kind, backbone.dim, 5, hidden=8, dropout=0.1)
    assert sum(parameter.ndim > 1 for parameter in head.parameters()) == layers
    logits = Classifier(backbone, head)(torch.rand(4, 3, 64, 64))
    assert logits.shape == (4, 5)
    assert logits.abs().max() == 0  # every class alike, before anything is learned
    logits.sum().backward()
    assert head.out.weight.grad is not None


@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "resnet50", "shufflenet_v2_x1_5"])
def test_what_is_read_back_sees_what_the_pretrained_saw(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random tensors are what the library would fetch, all of them, auxiliary classifiers too."""
    import torchvision

    fetched = network(name).state_dict()
    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", lambda *_, **__: fetched)
    trained = build_backbone(f"torchvision:{name}", pretrained=True).eval()
    read = build_backbone(f"torchvision:{name}", like_pretrained=True).eval()
    read.load_state_dict(trained.state_dict())
    transform = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    assert read.shown == trained.shown
    assert trained.shown.middle == pytest.approx(transform.crop_size[0] / transform.resize_size[0])
    pictures = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(read(pictures), trained(pictures))
    assert trained.train()(pictures).shape == (2, trained.dim)  # and no auxiliary classifier beside
