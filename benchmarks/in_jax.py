"""Contender "JAX": the same networks in jax.numpy; jit + scan over steps, vmap or map over members."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import lax
from torch import Tensor

from reprise import MLP, SGD, Transformer
from reprise.models import materialise
from reprise.tasks import InContextRegression

from .workloads import OnlineTeacher, Workload

CHUNK = 20  # steps of one scan


def mlp(model: MLP, p: dict, x: Any) -> Any:
    """As `reprise.MLP`."""
    act = {"relu": jax.nn.relu, "tanh": jnp.tanh}[model.activation]
    for i in range(len(model.widths) - 2):
        x = act(x @ p[f"layers.{i}.weight"].T + p[f"layers.{i}.bias"])
    return x @ p[f"layers.{len(model.widths) - 2}.weight"].T + p[f"layers.{len(model.widths) - 2}.bias"]


def convnet(model: Any, p: dict, x: Any) -> Any:
    """As `reprise.models.ConvNet`."""
    for i in range(len(model.widths)):
        x = lax.conv_general_dilated(x, p[f"convolutions.{i}.weight"], (1, 1), "SAME")
        x = jax.nn.relu(x + p[f"convolutions.{i}.bias"][None, :, None, None])
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    return x.reshape(len(x), -1) @ p["output.weight"].T + p["output.bias"]


def transformer(model: Transformer, p: dict, x: Any) -> Any:
    """As `reprise.Transformer`, in the two arrangements of the workloads."""
    linear = lambda name, x: x @ p[f"{name}.weight"].T + p.get(f"{name}.bias", 0.0)  # noqa: E731

    def norm(name: str, x: Any) -> Any:
        if model.norm is None:
            return x
        x = x - x.mean(-1, keepdims=True)
        x = x * lax.rsqrt((x * x).mean(-1, keepdims=True) + model.eps)
        return x * p[f"{name}.weight"] + p[f"{name}.bias"]

    act = jax.nn.relu if model.activation == "relu" else partial(jax.nn.gelu, approximate=True)
    x = p["input.weight"][x] if model.vocabulary else linear("input", x)
    batch, length, _ = x.shape
    x = x + p["position.0.weight"][:length]
    mask = jnp.where(jnp.tril(jnp.ones((length, length), bool)), 0.0, -jnp.inf)
    rows = slice(length - 1, None) if model.read == "last" else jnp.array(model.read)
    size = model.width // model.heads
    for i in range(model.layers):
        name, last = f"blocks.{i}", i == model.layers - 1
        qkv = linear(f"{name}.attention.qkv", norm(f"{name}.norm1", x))
        q, k, v = qkv.reshape(batch, length, 3, model.heads, size).transpose(2, 0, 3, 1, 4)
        bias = mask
        if last:
            q, bias, x = q[:, :, rows], mask[rows], x[:, rows]
        weights = jax.nn.softmax(q @ k.swapaxes(-1, -2) / math.sqrt(size) + bias)
        mixed = (weights @ v).swapaxes(1, 2).reshape(batch, -1, model.width)
        x = x + linear(f"{name}.attention.output", mixed)
        x = x + linear(f"{name}.mlp.output", act(linear(f"{name}.mlp.hidden", norm(f"{name}.norm3", x))))
    x = linear("output", norm("last_norm", x))
    return x[:, 0] if model.read == "last" else x


class Jax:
    """Members under vmap, or one after another in the same program (map)."""

    def __init__(self, workload: Workload, members: int, device: torch.device, over: str) -> None:
        self.workload, self.members, self.over = workload, members, over
        self.experiment = workload.experiment(0, 1)
        self.task, self.rule = self.experiment.task, self.experiment.update
        seeds = [workload.experiment(seed, 1).seed_of("model") for seed in range(members)]
        models = [materialise(workload.experiment(s, 1).model, seed) for s, seed in enumerate(seeds)]
        self.model = models[0]
        params = {
            n: jnp.array(np.stack([m.get_parameter(n).detach().numpy() for m in models]))
            for n, _ in self.model.named_parameters()
        }
        zeros = jax.tree.map(jnp.zeros_like, params)
        self.carry = params, zeros, jax.tree.map(jnp.zeros_like, params), jnp.zeros(members, jnp.int32)
        data = [workload.data(seed, torch.device("cpu")) for seed in range(members)]
        own = isinstance(self.task, OnlineTeacher)  # every member its own teacher; other data are common
        # stacked before they reach JAX, which would compile a program of as many inputs as there are members
        leaves = [jax.tree.map(lambda x: x.numpy(), d) for d in (data if own else data[:1])]
        self.data = jax.tree.map(lambda *x: jnp.asarray(np.stack(x) if own else x[0]), *leaves)
        self.data_axis = 0 if own else None
        self.keys = jax.random.split(jax.random.key(0), members)
        self._chunk = jax.jit(self._many, donate_argnums=0)
        self._one = jax.jit(jax.vmap(self.step))
        self.t, self.chunk = 0, CHUNK if workload.kind == "train" else 1

    def forward(self, p: dict, x: Any) -> Any:
        kind = type(self.model).__name__
        return {"MLP": mlp, "ConvNet": convnet, "Transformer": transformer}[kind](self.model, p, x)

    def loss(self, p: dict, batch: dict) -> Any:
        out, y = self.forward(p, batch["inputs"]), batch["targets"]
        if jnp.issubdtype(y.dtype, jnp.integer):
            return -jnp.take_along_axis(jax.nn.log_softmax(out), y[:, None], 1).mean()
        square = jnp.square(out.reshape(y.shape) - y).mean()
        return square / 2 if isinstance(self.task, OnlineTeacher) else square

    def step(self, carry: Any, batch: dict) -> Any:
        """One member, one step."""
        p, mean, square, t = carry
        loss, g = jax.value_and_grad(self.loss)(p, batch)
        rule, t = self.rule, t + 1
        if isinstance(rule, SGD):
            if rule.momentum:
                mean = jax.tree.map(lambda m, g: rule.momentum * m + g, mean, g)
                g = mean
            return (jax.tree.map(lambda p, g: p - rule.lr * g, p, g), mean, square, t), loss
        b1, b2 = rule.betas
        mean = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, mean, g)
        square = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, square, g)
        c1, c2 = 1 - b1**t, 1 - b2**t
        p = jax.tree.map(
            lambda p, m, v: (
                p * (1 - rule.lr * rule.weight_decay) - rule.lr * (m / c1) / (jnp.sqrt(v / c2) + rule.eps)
            ),
            p,
            mean,
            square,
        )
        return (p, mean, square, t), loss

    def draw(self, key: Any, data: dict) -> dict:
        """A batch of one member."""
        task, n = self.task, self.experiment.batch
        if n is None:
            return data["train"]
        a, b, c = jax.random.split(key, 3)
        if isinstance(task, OnlineTeacher):
            x = jax.random.normal(a, (n, task.dimension))
            return {"inputs": x, "targets": jnp.tanh(x @ data["A"]) @ data["b"]}
        if isinstance(task, InContextRegression):
            x = jax.random.normal(a, (n, task.pairs, task.dimension))
            w = jax.random.normal(b, (n, task.dimension, 1))
            y = (x @ w)[..., 0] + task.noise**0.5 * jax.random.normal(c, (n, task.pairs))
            tokens = jnp.zeros((n, 2 * task.pairs, task.dimension + 1))
            tokens = tokens.at[:, ::2, 1:].set(x).at[:, 1::2, 0].set(y)
            return {"inputs": tokens[:, :-1], "targets": y}
        rows = jax.random.randint(a, (n,), 0, len(data["train"]["targets"]))
        return {name: data["train"][name][rows] for name in ("inputs", "targets")}

    def _many(self, carry: Any, keys: Any, begin: Any) -> Any:
        def member(carry: Any, key: Any, data: dict) -> Any:
            body = lambda c, t: self.step(c, self.draw(jax.random.fold_in(key, t), data))  # noqa: E731
            carry, losses = lax.scan(body, carry, begin + jnp.arange(CHUNK))
            return carry, losses[-1]

        if self.over == "vmap":
            return jax.vmap(member, in_axes=(0, 0, self.data_axis))(carry, keys, self.data)
        if self.data_axis == 0:
            return lax.map(lambda x: member(*x), (carry, keys, self.data))
        return lax.map(lambda x: member(*x, self.data), (carry, keys))

    def train(self, steps: int, batches: list[Mapping[str, Tensor]] | None = None) -> Tensor:
        """The last loss of each member (M,); without batches in whole chunks."""
        if batches is not None:
            for batch in batches:
                arrays = {n: jnp.asarray(batch[n].numpy()) for n in ("inputs", "targets")}
                self.carry, losses = self._one(self.carry, arrays)
        else:
            for _ in range(steps // CHUNK):
                self.carry, losses = self._chunk(self.carry, self.keys, self.t)
                self.t += CHUNK
        return torch.tensor(jax.device_get(losses))

    def eigenvalues(self, k: int, iterations: int, start: Tensor) -> Tensor:
        """(M, k): Lanczos, the Hessian product linearised once."""
        if not hasattr(self, "_spectrum"):
            self._spectrum = jax.jit(partial(self._lanczos, k, iterations))
        # jax lays a dictionary out by its sorted names
        named = list(self.model.named_parameters())
        parts = start.split([p.numel() for _, p in named])
        order = sorted(range(len(named)), key=lambda i: named[i][0])
        vector = jnp.asarray(torch.cat([parts[i] for i in order]).numpy())
        return torch.tensor(jax.device_get(self._spectrum(self.carry[0], vector)))

    def _lanczos(self, k: int, iterations: int, params: dict, start: Any) -> Any:
        from jax.flatten_util import ravel_pytree

        def member(p: dict) -> Any:
            vector, back = ravel_pytree({n: p[n] for n, _ in self.model.named_parameters()})
            gradient = jax.grad(lambda v: self.loss(back(v), self.data["train"]))
            _, product = jax.linearize(gradient, vector)

            def body(i: Any, state: Any) -> Any:
                basis, images, v = state
                image = product(v)
                basis, images = basis.at[i].set(v), images.at[i].set(image)
                for _ in range(2):
                    image = image - (basis @ image) @ basis
                return basis, images, image / jnp.linalg.norm(image)

            empty = jnp.zeros((iterations, len(vector)))
            basis, images, _ = lax.fori_loop(
                0, iterations, body, (empty, empty, start / jnp.linalg.norm(start))
            )
            small = basis @ images.T
            return jnp.linalg.eigvalsh((small + small.T) / 2)[::-1][:k]

        return jax.vmap(member)(params) if self.over == "vmap" else lax.map(member, params)
