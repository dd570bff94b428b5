"""One configurable Transformer (Vaswani et al. 2017; GPT-2's arrangement by default)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..arguments import choose, positive, whole
from ..streams import Stream
from .activations import ACTIVATIONS
from .attention import Attention
from .blocks import Block, MLPBlock, Norm, Table, normed
from .model import Linear, Model

NORMS = (None, "layer", "rms")
PLACEMENTS = ("pre", "post", "pre-post")
MLPS = (*ACTIVATIONS, "gated")
PARTS = ("input", "position", "qkv", "attention-output", "mlp-hidden", "mlp-output", "output")


class Transformer(Model):
    """A stack of attention blocks over tokens or real-valued vectors.

    Args:
        layers, width, heads: number of blocks, of residual features, of attention heads.
        outputs: features read out at a position (None with `tied=True`: the vocabulary).
        context: longest sequence; with positions "ids" the number of ids (a tuple: of several tables).
        vocabulary: number of tokens, or features: size of real-valued inputs, mapped linearly without bias.
        head_size: features of a head (default width / heads); hidden: of the MLP (default 4 width).
        causal: a position sees only itself and earlier ones.
        norm: "layer", "rms" or None; affine: with gain (and bias); placement: "pre", "post" or "pre-post".
        activation: of the MLP: "gelu" (tanh form), "gelu-erf", "relu", "tanh", ..., or "gated" (gated GELU).
        bias: biases in attention and MLP; output_bias: in the read-out.
        positions: "learned", None, or "ids": an id array is part of the inputs, id 0 adds nothing.
        read: "every" position, the "last", or a tuple of positions; the last block computes only these.
        tied: the read-out is the token table.
        init: "gpt2": N(0, 0.02^2), outputs of branches divided by sqrt(2 layers), biases 0; or a dict
            part -> standard deviation, in which a missing part gets 1 / sqrt(fan_in), for outputs of branches
            divided by sqrt(2 layers), and tables 0.02. Parts: "input", "position", "qkv",
            "attention-output", "mlp-hidden", "mlp-output", "output".
        eps: of the norms.

    Inputs are int64 (batch, position) or real (batch, position, features), or a dict with "inputs" and, if
    wanted, "positions" (batch, position) or (batch, position, table) and "bias", added to the attention
    scores and broadcast to (batch, head, query, key). Outputs: (batch, position, outputs); (batch,
    outputs) for "last".
    """

    def __init__(
        self,
        layers: int,
        width: int,
        heads: int,
        outputs: int | None = None,
        context: int | tuple[int, ...] = 1024,
        vocabulary: int | None = None,
        features: int | None = None,
        head_size: int | None = None,
        hidden: int | None = None,
        causal: bool = True,
        norm: str | None = "layer",
        affine: bool = True,
        placement: str = "pre",
        activation: str = "gelu",
        bias: bool = True,
        output_bias: bool = False,
        positions: str | None = "learned",
        read: str | tuple[int, ...] = "every",
        tied: bool = False,
        init: str | Mapping[str, float] = "gpt2",
        eps: float = 1e-5,
    ):
        super().__init__()
        for name, value in (("layers", layers), ("width", width), ("heads", heads)):
            positive(name, value)
        choose("norm", norm, NORMS)
        choose("placement", placement, PLACEMENTS)
        choose("activation", activation, MLPS)
        choose("positions", positions, ("learned", "ids", None))
        if (vocabulary is None) == (features is None):
            raise ValueError(f"vocabulary, features: give exactly one, got {vocabulary!r} and {features!r}")
        if tied and (vocabulary is None or outputs not in (None, vocabulary)):
            raise ValueError(f"tied: needs vocabulary and outputs=None, got {vocabulary!r} and {outputs!r}")
        if outputs is None and not tied:
            raise ValueError(
                "outputs: expected an integer of at least 1; None is allowed with tied=True only"
            )
        if head_size is None and width % heads:
            raise ValueError(f"heads: width {width} is no multiple of {heads}; give head_size")
        if isinstance(read, str):
            choose("read", read, ("every", "last"))
        elif not read or min(read) < 0 or list(read) != sorted(set(read)):
            raise ValueError(f"read: expected increasing positions from 0, 'every' or 'last', got {read!r}")
        if isinstance(init, str):
            choose("init", init, ("gpt2",))
        else:
            for part in init:
                choose("init", part, PARTS)
        tables = whole("context", (context,) if isinstance(context, int) else context, 1)
        if positions != "ids" and len(tables) > 1:
            raise ValueError(f"context: several tables need positions='ids', got {context!r}")
        self.layers, self.width, self.heads, self.outputs = layers, width, heads, outputs
        self.context = context
        self.vocabulary, self.features, self.head_size, self.hidden = vocabulary, features, head_size, hidden
        self.causal, self.norm, self.affine, self.placement = causal, norm, affine, placement
        self.activation, self.bias, self.output_bias = activation, bias, output_bias
        self.positions = positions
        self.read = read if isinstance(read, str) else tuple(read)
        self.tied, self.init, self.eps = tied, init if isinstance(init, str) else dict(init), eps

        make_norm = lambda: None if norm is None else Norm(norm, width, affine, bias, eps)  # noqa: E731
        self.input = Linear(features, width, bias=False) if vocabulary is None else Table(vocabulary, width)
        self.position = nn.ModuleList(Table(n, width) for n in tables) if positions else None
        self.blocks = nn.ModuleList(
            Block(
                Attention(width, heads, head_size or width // heads, bias),
                MLPBlock(width, hidden or 4 * width, activation, bias),
                make_norm,
                placement,
            )
            for _ in range(layers)
        )
        self.last_norm = make_norm() if placement == "pre" else None
        self.output = None if tied else Linear(width, outputs, output_bias)

    def forward(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Outputs at the read-out positions; see the class for shapes."""
        return self._run(inputs, None)

    def activations(self, inputs: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """By name: "embedding"; "blocks.i.attention" (batch, head, query, key), "blocks.i"; "outputs"."""
        record: dict[str, Tensor] = {}
        self._run(inputs, record)
        return record

    def _run(self, inputs, record):
        inputs = inputs if isinstance(inputs, Mapping) else {"inputs": inputs}
        x = self._embed(inputs["inputs"], inputs.get("positions"))
        length = x.shape[1]
        bias = inputs.get("bias")
        if self.causal:
            mask = torch.full((length, length), -math.inf, dtype=x.dtype, device=x.device).triu(1)
            bias = mask if bias is None else mask + bias
        rows = _selector(self.read, length)
        _note(record, "embedding", x)
        for i, block in enumerate(self.blocks):
            select = rows if i == self.layers - 1 else None
            mask = bias if select is None or bias is None else select(bias, -2)
            x, weights = block(x, mask, select)
            _note(record, f"blocks.{i}.attention", weights)
            _note(record, f"blocks.{i}", x)
        x = normed(self.last_norm, x)
        x = self.output(x) if self.output is not None else x @ self.input.weight.t()
        x = x[:, 0] if self.read == "last" else x
        _note(record, "outputs", x)
        return x

    def _embed(self, inputs: Tensor, positions: Tensor | None) -> Tensor:
        x = self.input(inputs)
        if self.positions == "learned":
            if x.shape[1] > self.context:
                raise ValueError(f"inputs: {x.shape[1]} positions, allowed: context {self.context}")
            return x + self.position[0].weight[: x.shape[1]]
        if self.positions == "ids":
            if positions is None:
                raise ValueError("inputs: positions='ids' needs a dict with 'inputs' and 'positions'")
            ids = positions.unsqueeze(-1) if positions.dim() == 2 else positions
            for k, table in enumerate(self.position):
                x = x + table(ids[..., k]) * (ids[..., k] != 0).unsqueeze(-1)
        return x

    def reset(self, stream: Stream, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Draw every parameter as `init` says; norms start with gain 1 and bias 0."""
        drawn = {}
        for name, p in self.named_parameters():
            if "norm" in name:
                drawn[name] = torch.full_like(
                    p, float(name.endswith("weight")), dtype=dtype, device=stream.key.device
                )
            elif name.endswith("bias"):
                drawn[name] = torch.zeros_like(p, dtype=dtype, device=stream.key.device)
            else:
                drawn[name] = stream.normal(name, tuple(p.shape), dtype) * self._deviation(name, p.shape[-1])
        return drawn

    def _deviation(self, name: str, fan_in: int) -> float:
        part = _part(name)
        branch = part in ("attention-output", "mlp-output")
        shrink = math.sqrt(2 * self.layers) if branch else 1.0
        if self.init == "gpt2":
            return 0.02 / shrink
        if part in self.init:
            return float(self.init[part])
        table = part == "position" or (part == "input" and self.vocabulary is not None)
        return 0.02 if table else fan_in**-0.5 / shrink


def _part(name: str) -> str:
    for key, part in (
        ("attention.qkv", "qkv"),
        ("attention.output", "attention-output"),
        ("mlp.hidden", "mlp-hidden"),
        ("mlp.output", "mlp-output"),
    ):
        if key in name:
            return part
    return name.split(".")[0]


def _note(record: dict[str, Tensor] | None, name: str, value: Tensor) -> None:
    if record is not None:
        record[name] = value


def _selector(read: str | tuple[int, ...], length: int) -> Callable[..., Tensor] | None:
    """A function that keeps the read-out positions of an axis (default 1), or None for all of them."""
    if read == "every":
        return None
    places = (length - 1,) if read == "last" else read
    if places[-1] >= length:
        raise ValueError(f"read: position {places[-1]} is outside a sequence of {length}")
    stride = places[1] - places[0] if len(places) > 1 else 1
    if places == tuple(range(places[0], places[-1] + 1, stride)):  # a slice has a cheap derivative

        def select(x: Tensor, axis: int = 1) -> Tensor:
            axis = axis % x.dim()
            return x[(slice(None),) * axis + (slice(places[0], places[-1] + 1, stride),)]

        return select
    return lambda x, axis=1: x.index_select(axis, torch.tensor(places, device=x.device))
