"""AutoSAMT with less memory: what each copy of the weights that it keeps is worth.

AutoSAMT keeps three: v, q and the lag. `Leaner` keeps them, too, but after each step it puts into
one of them what could have been computed from less.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

import samt

Copies: TypeAlias = Literal["all", "no lag", "v in rows", "v in factors"]


class Leaner(samt.AutoSAMT):
    """AutoSAMT as it would be with two copies of the weights.

    - "no lag": the way that the gradient is compared with is q, from x to z, and not x − x̄.
    - "v in rows": v is the mean of each row of a matrix.
    - "v in factors": v is the mean of its row times that of its column, over the mean of all, as
      in Adafactor (Shazeer and Stern, 2018).
    """

    copies: ClassVar[Copies] = "all"

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """As in `AutoSAMT`."""
        result = super().step(closure)
        with torch.no_grad():
            for state in self.state.values():
                v = state["exp_avg_sq"]
                if self.copies == "no lag":
                    state["lag"].copy_(state["lead"])
                elif self.copies != "all" and v.ndim > 1:
                    v.copy_(_smaller(v.flatten(1), self.copies).view_as(v))
        return result


def _smaller(v: Tensor, copies: Copies) -> Tensor:
    rows = v.mean(dim=1, keepdim=True)
    if copies == "v in rows":
        return rows.expand_as(v)
    return rows * v.mean(dim=0, keepdim=True) / rows.mean().clamp_min(1e-38)
