"""What a connection module computes without delays: its linear map, and where that cannot be told from its class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from delaykit.attaching.attachment import ProductOf
from delaykit.attaching.retyping import original_class
from delaykit.errors import ConfigError
from delaykit.functional.delayed_convolution import Convolution
from delaykit.interfaces import PointDelay
from delaykit.synapse import Product, Synapse

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)


def product_of(module: Any, base: Callable[[Tensor], Tensor]) -> Product:
    """Describe a module's own linear map: of a Linear, a convolution, or an element-wise connection.

    Args:
        module: the connection.
        base: its forward without delays.
    """
    bias = getattr(module, "bias", None)
    if isinstance(module, nn.Linear):
        weight = module.weight
        return Product(base, lambda x: nn.functional.linear(x, weight), weight, bias)
    space = channel_space(module)

    def without_bias(x: Tensor) -> Tensor:
        if bias is None:
            return base(x)
        if isinstance(module, TRANSPOSED):
            run = getattr(nn.functional, f"conv_transpose{space}d")
            shape = (module.stride, module.padding, module.output_padding, module.groups, module.dilation)
            return run(x, module.weight, None, *shape)
        if isinstance(module, CONVOLUTIONS):
            return module._conv_forward(x, module.weight, None)
        return base(x) - bias.reshape(-1, *[1] * space)

    return Product(base, without_bias, None, bias, space, convolution_of(module))


def convolution_of(module: Any) -> Convolution | None:
    """Describe a convolution by its kernel; None for other modules."""
    if not isinstance(module, CONVOLUTIONS):
        return None
    options: dict[str, Any] = {name: getattr(module, name) for name in ("stride", "padding", "dilation")}
    transposed, pads = isinstance(module, TRANSPOSED), None
    if transposed:
        options["output_padding"] = module.output_padding
    elif module.padding_mode != "zeros":
        pads, options["padding"] = (list(module._reversed_padding_repeated_twice), module.padding_mode), 0
    return Convolution(module.weight, module.groups, options, transposed, pads)


def fan_in(module: nn.Module) -> int | None:
    """Count the input channels that an output channel of a convolution hears; None for other modules."""
    return module.in_channels // module.groups if isinstance(module, CONVOLUTIONS) else None


def refuse_hidden_product(where: str, module: Any, synapse: Synapse, product: ProductOf | None) -> None:
    """Raise for a delay behind or within a convolution whose class has a forward of its own.

    A delay before it needs its forward only; one behind it leaves the bias where it is, so it needs the product alone;
    one of each pair of channels needs its kernel.
    """
    if not isinstance(module, CONVOLUTIONS) or not isinstance(synapse.delay, PointDelay):
        return
    how = synapse.delay.granularity
    fix = "use an axonal or layer delay, {}or compute its weight by torch.nn.utils.parametrize, registered after "
    kind = original_class(module)
    if product is not None:
        hidden = how == "synaptic" and product(module, module.forward).convolution is None
    else:
        needs = how == "synaptic" or (how == "dendritic" and module.bias is not None)
        hidden = needs and kind.forward not in {base.forward for base in CONVOLUTIONS}
    if hidden:
        found = f"a {how} delay on {kind.__name__}, a convolution with a forward of its own"
        expected = "its product without the bias" if how == "dendritic" else "the product of its input and its weight"
        fix = fix.format("give it bias=False, " if how == "dendritic" else "") + "dk.wrap_"
        raise ConfigError(where, found, expected, fix)


def channel_space(module: nn.Module) -> int:
    """Count the dimensions behind the channel: 0 for Linear, 1 for Conv1d, 2 for Conv2d."""
    return len(module.kernel_size) if isinstance(module, nn.modules.conv._ConvNd) else 0
