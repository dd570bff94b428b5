"""Models against torch's own layers, alone and under vmap."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from reprise.models import (
    MLP,
    VGG,
    ConvNet,
    EmbeddingMLP,
    Objective,
    ResNet,
    Transformer,
    initialise,
    materialise,
)
from reprise.streams import Stream

MODELS = [
    (MLP((5, 7, 3)), torch.randn(4, 5)),
    (MLP((5, 7, 6, 3), ("gelu", "softplus"), norm="layer-affine", init="he"), torch.randn(4, 5)),
    (EmbeddingMLP(5, (4, 6, 5)), torch.randint(5, (3, 2))),
    (Transformer(2, 8, 2, outputs=3, context=6, features=4, read=(0, 2, 4)), torch.randn(2, 5, 4)),
    (
        Transformer(1, 8, 2, context=6, vocabulary=7, tied=True, norm="rms", activation="gated"),
        torch.randint(7, (2, 6)),
    ),
    (ResNet(width=2, blocks=1, groups=2), torch.randn(2, 3, 8, 8)),
    (ResNet(width=2, blocks=1, norm=None), torch.randn(2, 3, 8, 8)),
    (ConvNet(8, (2, 3)), torch.randn(2, 1, 8, 8)),
    (VGG(width=1 / 64), torch.randn(2, 3, 8, 8)),
]
NAMES = [f"{type(m).__name__}{i}" for i, (m, _) in enumerate(MODELS)]


def drawn(model, seed=0, dtype=torch.float64):
    return model.reset(Stream.of(seed, "model"), dtype)


def cast(x, dtype=torch.float64):
    return x.to(dtype) if x.is_floating_point() else x


@pytest.mark.parametrize(("model", "x"), MODELS, ids=NAMES)
def test_reset_names_every_parameter_and_leaves_the_module_alone(model, x):
    params = drawn(model, dtype=torch.float32)
    assert {k: tuple(v.shape) for k, v in params.items()} == {
        k: tuple(p.shape) for k, p in model.named_parameters()
    }
    assert list(params) == [name for name, _ in model.named_parameters()]
    assert all(p.eq(0).all() for name, p in model.named_parameters() if "norm" not in name)
    assert not list(model.named_buffers())
    assert any(not torch.equal(params[k], drawn(model, 1, torch.float32)[k]) for k in params)


@pytest.mark.parametrize(("model", "x"), MODELS, ids=NAMES)
def test_stacked_outputs_and_gradients_equal_those_alone(model, x):
    def loss(params):
        return functional_call(model, params, (cast(x),)).square().sum()

    keys = torch.stack([Stream.of(seed, "model").key for seed in range(3)])
    zero = torch.zeros((), dtype=torch.int64)
    stack = vmap(lambda key: model.reset(Stream(key, zero, zero), torch.float64))(keys)
    gradients = vmap(grad(loss))(stack)
    for seed in range(3):
        alone = drawn(model, seed)
        for name, g in grad(loss)(alone).items():
            torch.testing.assert_close(stack[name][seed], alone[name])
            torch.testing.assert_close(gradients[name][seed], g)


@pytest.mark.parametrize(("model", "x"), MODELS, ids=NAMES)
def test_activations_end_with_the_outputs(model, x):
    params = drawn(model)
    model = type(model)(**{k: getattr(model, k) for k in _options(model)}).double()
    model.load_state_dict(params)
    record = model.activations(cast(x))
    assert list(record)[-1] == "outputs"
    torch.testing.assert_close(record["outputs"], model(cast(x)))


def _options(model):
    import inspect

    return [name for name in inspect.signature(type(model).__init__).parameters if name != "self"]


@pytest.mark.parametrize(("model", "x"), MODELS, ids=NAMES)
def test_repr_shows_every_option(model, x):
    assert all(f"{name}={getattr(model, name)!r}" in repr(model) for name in _options(model))


def test_mlp_equals_torch_layers():
    model = materialise(MLP((6, 8, 5, 4), ("tanh", "elu"), norm="layer"), 3)
    layers = [nn.Linear(a, b) for a, b in ((6, 8), (8, 5), (5, 4))]
    for i, layer in enumerate(layers):
        layer.load_state_dict({k: model.state_dict()[f"layers.{i}.{k}"] for k in ("weight", "bias")})
    norm = lambda n: nn.LayerNorm(n, elementwise_affine=False)  # noqa: E731
    theirs = nn.Sequential(layers[0], norm(8), nn.Tanh(), layers[1], norm(5), nn.ELU(), layers[2])
    x = torch.randn(9, 6)
    torch.testing.assert_close(model(x), theirs(x))


def test_mlp_initialisations_have_their_moments():
    shape, n = (400, 300, 10), 400 * 300
    torch_, he, normal = (drawn(MLP(shape, init=init)) for init in ("torch", "he", "normal"))
    w = torch_["layers.0.weight"]
    assert w.abs().max() < 1 / 20 and abs(w.var() * 3 * 400 - 1) < 6 / math.sqrt(n)
    assert 0.9 / 20 < torch_["layers.0.bias"].abs().max() < 1 / 20
    for params, variance in ((he, 2 / 400), (normal, 1 / 400)):
        w = params["layers.0.weight"]
        assert abs(w.mean()) < 5 * math.sqrt(variance / n) and abs(w.var() / variance - 1) < 5 * math.sqrt(
            2 / n
        )
        assert params["layers.0.bias"].eq(0).all()
    scaled = drawn(MLP(shape, init="he", scale=(1.0, 0.5)))
    torch.testing.assert_close(scaled["layers.1.weight"], he["layers.1.weight"] / 2)
    torch.testing.assert_close(scaled["layers.0.weight"], he["layers.0.weight"])


def test_embedding_mlp_takes_ids_and_their_one_hot_form():
    model = materialise(EmbeddingMLP(5, (4, 6, 5), slots=2), 0)
    ids = torch.randint(5, (8, 2))
    tables = model.tables.reshape(2, 5, 4)
    torch.testing.assert_close(model(ids), model.mlp(tables[0][ids[:, 0]] + tables[1][ids[:, 1]]))
    torch.testing.assert_close(model(ids), model(nn.functional.one_hot(ids, 5).flatten(1).float()))


def test_objective_is_its_own_model():
    model = materialise(
        Objective(lambda x: torch.log(torch.cosh(x[0] * x[1])), start=(0.3, 4.0)), 0, torch.float64
    )
    assert model().item() == pytest.approx(math.log(math.cosh(1.2)))
    line = Objective(lambda x, inputs: inputs * x, start=(2.0,), names=("slope",), takes="inputs")
    line = materialise(line, 0)
    assert (
        line(torch.tensor([3.0])).item() == 6 and line.activations(torch.tensor([3.0]))["slope"].item() == 2
    )
    draws = Objective(lambda x: x.sum(), start=lambda stream: stream.normal("x", (2,), torch.float64))
    assert not torch.equal(drawn(draws, 0)["x"], drawn(draws, 1)["x"])


def test_resnet_20_has_its_size_and_vgg_16_its_layers():
    weights = sum(p.numel() for name, p in ResNet().named_parameters() if "norm" not in name)
    assert (
        weights == 9 * (3 * 16 + 6 * 16 * 16 + 16 * 32 + 5 * 32 * 32 + 32 * 64 + 5 * 64 * 64) + 64 * 10 + 10
    )
    assert [c.out_channels for c in VGG().convolutions] == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6


def test_initialise_draws_torch_defaults_for_any_module():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.conv = nn.Embedding(50, 400), nn.Conv1d(400, 20, 3)
            self.norm, self.out = nn.GroupNorm(2, 20), nn.Linear(20, 2)

    net = Net()
    params = initialise(net, Stream.of(0, "model"))
    assert list(params) == [name for name, _ in net.named_parameters()]
    assert 0.95 / math.sqrt(1200) < params["conv.weight"].abs().max() <= 1 / math.sqrt(1200)
    assert params["conv.bias"].abs().max() <= 1 / math.sqrt(1200)
    assert abs(params["table.weight"].std() - 1) < 0.03
    assert params["norm.weight"].eq(1).all() and params["norm.bias"].eq(0).all()
    assert initialise(net, Stream.of(0, "model"), torch.float64)["out.bias"].dtype == torch.float64


def test_initialise_refuses_what_it_does_not_know():
    with pytest.raises(TypeError, match="PReLU.*known are"):
        initialise(nn.Sequential(nn.Linear(2, 2), nn.PReLU()), Stream.of(0, "model"))
    with pytest.raises(TypeError, match="has buffers.*running_mean"):
        initialise(nn.Sequential(nn.BatchNorm1d(2)), Stream.of(0, "model"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP((3,)), "widths: expected at least 2"),
        (lambda: MLP((3, 0, 1)), "widths: expected an integer of at least 1, got 0"),
        (lambda: MLP((3, 4, 1), "swish"), "activation: got 'swish', allowed: 'relu', 'identity'"),
        (lambda: MLP((3, 4, 1), ("relu", "relu")), "activation: expected one name or 1"),
        (lambda: MLP((3, 4, 1), norm="batch"), "norm: got 'batch', allowed: None, 'layer', 'layer-affine'"),
        (lambda: MLP((3, 4, 1), init="xavier"), "init: got 'xavier', allowed: 'torch', 'he', 'normal'"),
        (lambda: MLP((3, 4, 1), scale=(1.0,)), "scale: expected one number or 2"),
        (lambda: ConvNet(2, (2, 3)), "widths: 2 poolings need a size of at least 4, got 2"),
        (lambda: VGG(width=0), "width: expected a positive multiplier, got 0"),
        (lambda: ResNet(norm="batch"), "norm: got 'batch', allowed: None, 'group'"),
        (lambda: Objective(3, (1.0,)), "function: expected a callable, got 3"),
        (lambda: Objective(torch.sum, (1.0,), names=("a", "b")), "names: expected 1"),
    ],
)
def test_wrong_options_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
