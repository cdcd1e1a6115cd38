"""A backbone as blocks in order, found in any network: what layer-wise decay, surgical and gradual tuning go by."""

from collections.abc import Iterator

from torch import nn

STACKS = (nn.Sequential, nn.ModuleList)


def blocks_of(backbone: nn.Module) -> list[list[str]]:
    """Names of the backbone's parameters, one list for each of its blocks, from the input to the output.

    A block is a member of a stack: a layer of a transformer, a residual block, a module between two of them. What comes
    before the stack (stem, embeddings) is the lowest block; norms and projections after a block belong to it. Where
    there is no stack, every layer is a block. The order is that in which modules were registered, and a network in
    which that is wrong has `at_input`: names of modules that belong to the lowest block wherever they were registered.
    """
    shapes = {name: parameter.ndim for name, parameter in backbone.named_parameters()}
    units = list(_units(backbone, ""))
    if not any(is_member for _, _, is_member in units):
        layers = ((prefix, layer.named_parameters(prefix, recurse=False)) for prefix, layer in backbone.named_modules())
        units = [(prefix, [name for name, _ in own], True) for prefix, own in layers]
    found: list[list[str]] = [[]]
    for prefix, listed, is_member in units:
        names = [name for name in listed if name in shapes]  # a tied parameter has its first name alone
        if prefix in getattr(backbone, "at_input", ()):
            found[0] += names
            continue
        if is_member and found[-1] and any(shapes[name] > 1 for name in names):  # a norm is no block
            found.append([])
        found[-1] += names
    return [names for names in found if names]


def _units(module: nn.Module, prefix: str) -> Iterator[tuple[str, list[str], bool]]:
    """Parts of a module in order: prefix, names of its parameters, and whether it is a member of a stack."""
    if own := [prefix + name for name, _ in module.named_parameters(recurse=False)]:
        yield prefix, own, False
    is_stack = _is_stack(module)
    for name, child in module.named_children():
        place = f"{prefix}{name}"
        if _is_stack(child) or (not is_stack and any(map(_is_stack, child.modules()))):
            yield from _units(child, f"{place}.")
        elif names := [inner for inner, _ in child.named_parameters(place)]:
            yield place, names, is_stack


def _is_stack(module: nn.Module) -> bool:
    """Whether a module is nothing but a row of modules, of which some are more than one layer."""
    # Not a subclass: a convolution with its norm is often one, and is no row of blocks.
    members = [child for child in module.children() if any(True for _ in child.parameters())]
    return type(module) in STACKS and len(members) > 1 and any(any(True for _ in one.children()) for one in members)
