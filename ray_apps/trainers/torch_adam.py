"""AdamW by torch's own fused step, with a state that can be stored.

The function and not `torch.optim.AdamW`: making that object imports torch's compiler, which
takes longer than many a training. Loshchilov and Hutter, Decoupled Weight Decay
Regularization (2019).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.optim.adamw import adamw

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class AdamW:
    """Steps of some parameters along their gradients.

    Args:
        parameters: what is moved.
        weight_decay: of all of them.
        last: how many of the parameters, the last ones, have a rate of their own.
        last_rate: times the rate of the others.

    Attributes:
        weight_decay, last_rate: of the next step.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        *,
        weight_decay: float,
        last: int = 0,
        last_rate: float = 1.0,
    ) -> None:
        self._parameters, self.weight_decay = list(parameters), weight_decay
        whole = len(self._parameters)
        self._first, self._last = slice(0, whole - last), slice(whole - last, whole)
        self.last_rate = last_rate
        self._means = [torch.zeros_like(one) for one in self._parameters]
        self._squares = [torch.zeros_like(one) for one in self._parameters]
        self._steps = [torch.zeros((), device=one.device) for one in self._parameters]

    @torch.no_grad()
    def step(self, grads: Sequence[Tensor], rate: float) -> None:
        """Move every parameter by its gradient at a learning rate."""
        for part, times in ((self._first, 1.0), (self._last, self.last_rate)):
            if part.start == part.stop:
                continue
            adamw(
                self._parameters[part],
                list(grads)[part],
                self._means[part],
                self._squares[part],
                [],
                self._steps[part],
                foreach=False,
                fused=True,
                capturable=False,
                differentiable=False,
                amsgrad=False,
                beta1=BETAS[0],
                beta2=BETAS[1],
                lr=rate * times,
                weight_decay=self.weight_decay,
                eps=EPSILON,
                maximize=False,
            )

    def state(self) -> dict[str, Tensor]:
        """Return what later steps depend on."""
        parts = {"mean": self._means, "square": self._squares, "step": self._steps}
        return {f"{name}.{i}": t for name, found in parts.items() for i, t in enumerate(found)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state that `state` gave."""
        for name, mine in self.state().items():
            mine.copy_(state[name])
