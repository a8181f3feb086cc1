"""Linear layers by oneDNN instead of the BLAS that torch calls for float32 on a CPU.

The two compute the same sums in another order. Where a machine has AVX-512 and MKL does not use it (AMD),
oneDNN takes four fifths of the time or less; where MKL does, they are alike. A GELU that follows is applied
while the output is still in the cache.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["FastLinear", "linear", "quicken_linears", "quicken_mlp"]


class FastLinear(nn.Linear):
    """A linear layer, and the GELU after it if asked; ordinary wherever oneDNN does not apply.

    oneDNN is used without gradients, in float32, on the CPU, outside of autocast.

    Args:
        linear: Whose parameters it takes over; names in the state dict stay.
        gelu: Whether the exact GELU follows.
    """

    def __init__(self, linear: nn.Linear, *, gelu: bool = False) -> None:
        with torch.device("meta"):
            super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None)
        self.weight, self.bias, self.gelu = linear.weight, linear.bias, gelu
        self.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """(..., in) -> (..., out)."""
        return linear(input, self.weight, self.bias, gelu=self.gelu)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, gelu: bool = False) -> Tensor:
    """(..., in) -> (..., out), as `torch.nn.functional.linear`, and the exact GELU after it if asked."""
    if not _applies(x, weight):
        out = F.linear(x, weight, bias)
        return F.gelu(out) if gelu else out
    name, algorithm = ("gelu", "none") if gelu else ("none", "")
    fast: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, name, [], algorithm)
    return fast


def _applies(x: Tensor, weight: Tensor) -> bool:
    return (
        _AVAILABLE
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


_AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def quicken_linears(module: nn.Module) -> None:
    """Replace every plain linear layer below a module; those of attention modules, read by name, stay."""
    for parent in module.modules():
        if isinstance(parent, nn.MultiheadAttention):
            continue
        for name, child in parent.named_children():
            if type(child) is nn.Linear:
                setattr(parent, name, FastLinear(child))


def quicken_mlp(mlp: nn.Module) -> None:
    """Replace the two linear layers of a timm MLP, and take its GELU, where it is exact, into the first."""
    first, act = getattr(mlp, "fc1", None), getattr(mlp, "act", None)
    # By name: timm has a class of its own, and calls the approximate ones otherwise.
    exact = type(act).__name__ == "GELU" and getattr(act, "approximate", "none") == "none"
    if type(first) is nn.Linear and exact:
        mlp.fc1, mlp.act = FastLinear(first, gelu=True), nn.Identity()
    quicken_linears(mlp)
