"""Networks for tables: numbers and category codes in, one row of outputs each.

`mlp`, `resnet` and `ft_transformer` follow Gorishniy et al., Revisiting Deep Learning Models for
Tabular Data (2021), with layer norms, which see one row at a time, where the paper's residual
network has batch norms: so a row's score does not depend on the rows beside it, nor on how the
rows are divided among workers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

NetName = Literal["mlp", "resnet", "ft_transformer"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a network is made of; stored with its weights.

    Attributes:
        numbers: numeric features.
        levels: codes of each category feature; the last code of each stands for codes that
            training never saw, the one before it for null.
        outputs: numbers a row.
        width: of a hidden layer, or of a token.
        depth: hidden layers or blocks.
        embedding: numbers that a category becomes (a token's width for the transformer).
    """

    net: NetName
    numbers: int
    levels: tuple[int, ...]
    outputs: int
    width: int
    depth: int
    embedding: int
    heads: int
    dropout: float

    @property
    def row_floats(self) -> int:
        """About how many numbers a row becomes at once on its way through."""
        if self.net != "ft_transformer":
            return 2 * self.numbers + len(self.levels) * self.embedding + 4 * self.width
        tokens = self.numbers + len(self.levels) + 1
        return tokens * (self.heads * tokens + 8 * self.width)


HEAD = "head."
"""Begins the names of the last layer's weights, of every network."""


def lower_names(net: nn.Module, layers: int) -> list[str]:
    """Return the names of the weights of so many layers and of what is below them.

    Args:
        net: what `build` returned.
        layers: from 0, which is none and nothing, to the network's depth.
    """
    if not layers:
        return []
    kind = type(net)
    places = range(0, layers * kind.STEP, kind.STEP)  # type: ignore[attr-defined]
    below = (*kind.BELOW, *(kind.LAYER.format(place) for place in places))  # type: ignore[attr-defined]
    return [name for name, _ in net.named_parameters() if name.startswith(below)]


def build(shape: Shape) -> nn.Module:
    """Return a network with fresh weights, drawn from torch's generator.

    Its call takes numbers float32 [rows, numbers], is_null float32 of the same shape and codes
    int64 [rows, categories], and returns float32 [rows, outputs].
    """
    kinds = {"mlp": _Mlp, "resnet": _ResNet, "ft_transformer": _FtTransformer}
    return kinds[shape.net](shape)


def shift_scores(net: nn.Module, shift: float) -> None:
    """Add to the raw score of a binary network."""
    *_, last = (one for one in net.modules() if isinstance(one, nn.Linear))
    with torch.no_grad():
        last.bias.add_(shift)


def set_dropout(net: nn.Module, share: float) -> None:
    """Drop another share of a network's numbers in training from now on."""
    for one in net.modules():
        if isinstance(one, nn.Dropout):
            one.p = share
        elif isinstance(one, nn.MultiheadAttention):
            one.dropout = share


def empty_levels(net: nn.Module, is_there: Tensor) -> None:
    """Give levels that no row of train has the vector of those never seen.

    Nothing would ever move the one they begin with.

    Args:
        net: fresh.
        is_there: which levels some row has, those of one feature after another's: [levels].
    """
    for one in net.modules():
        if isinstance(one, _Categories):
            with torch.no_grad():
                one.table.weight[~is_there] = 0.0


class _Dropout(nn.Dropout):
    """Drops numbers at random, on cores with fewer draws than torch takes.

    Sixteen random bits decide about a number, four numbers a draw of its generator, where torch
    draws once or twice for each; a share is kept to 1/65,536 of what is asked for.
    """

    def forward(self, numbers: Tensor) -> Tensor:
        dropped = round(self.p * _SIXTEEN_BITS)
        is_ours = numbers.device.type == "cpu" and not torch.compiler.is_compiling()
        if not (self.training and is_ours and 0 < dropped < _SIXTEEN_BITS):
            return super().forward(numbers)
        count = numbers.numel()
        words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[:count].view(numbers.shape)
        kept = (bits >= dropped - _SIXTEEN_BITS // 2).to(numbers.dtype)
        return numbers * kept.mul_(_SIXTEEN_BITS / (_SIXTEEN_BITS - dropped))


_SIXTEEN_BITS = 1 << 16


class _Categories(nn.Module):
    """Codes of all category features -> a vector each, from one table."""

    starts: Tensor

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        starts = [0, *torch.tensor(shape.levels).cumsum(0).tolist()][: len(shape.levels)]
        self.register_buffer("starts", torch.tensor(starts, dtype=torch.int64), persistent=False)
        self.table = nn.Embedding(sum(shape.levels), width)
        with torch.no_grad():
            # null and codes never seen: what no row of train has, nothing would ever move
            for start, count in zip(starts, shape.levels, strict=True):
                self.table.weight[start + count - 2 : start + count] = 0.0

    def forward(self, codes: Tensor) -> Tensor:
        """Return float32 [rows, categories, width]."""
        places = codes + self.starts
        if codes.device.type != "cpu":
            found: Tensor = self.table(places)
            return found
        # the same numbers and gradients; on cores its way back is shorter
        flat = self.table.weight.index_select(0, places.flatten())
        return flat.view(*places.shape, flat.shape[1])


class _Flat(nn.Module):
    """All features of a row side by side."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.categories = _Categories(shape, shape.embedding) if shape.levels else None
        self.width = 2 * shape.numbers + len(shape.levels) * shape.embedding
        self._null = slice(shape.numbers, 2 * shape.numbers)

    def first_layer(self, width: int) -> nn.Linear:
        """Return a layer on these, in which being null says nothing until a row was."""
        layer = nn.Linear(self.width, width)
        with torch.no_grad():
            layer.weight[:, self._null] = 0.0
        return layer

    def forward(self, numbers: Tensor, is_null: Tensor, codes: Tensor) -> Tensor:
        parts = [numbers, is_null]
        if self.categories is not None:
            parts.append(self.categories(codes).flatten(1))
        return torch.cat(parts, 1)


class _Mlp(nn.Module):
    BELOW, LAYER, STEP = ("flat.",), "body.{}.", 3

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.flat = _Flat(shape)
        layers: list[nn.Module] = []
        for place in range(shape.depth):
            first = (
                nn.Linear(shape.width, shape.width)
                if place
                else self.flat.first_layer(shape.width)
            )
            layers += [first, nn.ReLU(), _Dropout(shape.dropout)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(shape.width, shape.outputs)

    def forward(self, numbers: Tensor, is_null: Tensor, codes: Tensor) -> Tensor:
        found: Tensor = self.head(self.body(self.flat(numbers, is_null, codes)))
        return found


class _ResNet(nn.Module):
    BELOW, LAYER, STEP = ("flat.", "first."), "blocks.{}.", 1

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.flat = _Flat(shape)
        self.first = self.flat.first_layer(shape.width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(shape.width),
                nn.Linear(shape.width, 2 * shape.width),
                nn.ReLU(),
                _Dropout(shape.dropout),
                nn.Linear(2 * shape.width, shape.width),
            )
            for _ in range(shape.depth)
        )
        self.head = nn.Sequential(
            nn.LayerNorm(shape.width), nn.ReLU(), nn.Linear(shape.width, shape.outputs)
        )

    def forward(self, numbers: Tensor, is_null: Tensor, codes: Tensor) -> Tensor:
        hidden = self.first(self.flat(numbers, is_null, codes))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        found: Tensor = self.head(hidden)
        return found


class _FtTransformer(nn.Module):
    """Every feature a token; the answer is read from one more."""

    BELOW = ("scale", "shift", "null", "categories.", "answer")
    LAYER, STEP = "blocks.layers.{}.", 1

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        spread = width**-0.5
        self.scale = nn.Parameter(torch.empty(shape.numbers, width).uniform_(-spread, spread))
        self.shift = nn.Parameter(torch.empty(shape.numbers, width).uniform_(-spread, spread))
        self.null = nn.Parameter(torch.zeros(shape.numbers, width))
        self.categories = _Categories(shape, width) if shape.levels else None
        self.answer = nn.Parameter(torch.empty(1, width).uniform_(-spread, spread))
        layer = nn.TransformerEncoderLayer(
            width, shape.heads, 2 * width, shape.dropout, "gelu", batch_first=True, norm_first=True
        )
        for name in ("dropout", "dropout1", "dropout2"):
            setattr(layer, name, _Dropout(shape.dropout))
        self.blocks = nn.TransformerEncoder(layer, shape.depth, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, shape.outputs))

    def forward(self, numbers: Tensor, is_null: Tensor, codes: Tensor) -> Tensor:
        parts = [
            self.answer.expand(len(numbers), 1, -1),
            numbers[:, :, None] * self.scale + self.shift + is_null[:, :, None] * self.null,
        ]
        if self.categories is not None:
            parts.append(self.categories(codes))
        found: Tensor = self.head(self.blocks(torch.cat(parts, 1))[:, 0])
        return found
