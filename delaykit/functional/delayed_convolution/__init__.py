"""A convolution whose pairs of channels deliver late."""

from delaykit.functional.delayed_convolution.operator import delayed_convolution
from delaykit.functional.delayed_convolution.spatial import Convolution

__all__ = ["Convolution", "delayed_convolution"]
