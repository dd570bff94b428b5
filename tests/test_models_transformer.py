"""The Transformer against torch's attention and encoder layers."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call

from reprise.models import Transformer, materialise
from reprise.streams import Stream


def wild(model, seed=0):
    """All parameters, gains and biases too, at random: nothing hides behind a zero."""
    generator = torch.Generator().manual_seed(seed)
    model.double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) * 0.4)
    return model


def encoder_layer(block, heads, width, norm_first):
    """torch's layer with the parameters of our block."""
    theirs = nn.TransformerEncoderLayer(
        width, heads, 4 * width, 0.0, nn.GELU(approximate="tanh"), batch_first=True, norm_first=norm_first
    ).double()
    norms = (block.norm1, block.norm3) if norm_first else (block.norm2, block.norm4)
    ours = {
        "self_attn.in_proj_weight": block.attention.qkv.weight,
        "self_attn.in_proj_bias": block.attention.qkv.bias,
    }
    for name, part in (
        ("self_attn.out_proj", block.attention.output),
        ("linear1", block.mlp.hidden),
        ("linear2", block.mlp.output),
        ("norm1", norms[0]),
        ("norm2", norms[1]),
    ):
        ours |= {f"{name}.weight": part.weight, f"{name}.bias": part.bias}
    theirs.load_state_dict(ours)
    return theirs


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [7, 40])  # the softmax is written out below 33
def test_stack_equals_torch_encoder_layers(placement, causal, length):
    model = wild(
        Transformer(2, 12, 3, outputs=5, context=40, vocabulary=9, causal=causal, placement=placement)
    )
    tokens = torch.randint(9, (2, length))
    mask = nn.Transformer.generate_square_subsequent_mask(length, dtype=torch.float64) if causal else None
    x = model.input.weight[tokens] + model.position[0].weight[:length]
    for block in model.blocks:
        x = encoder_layer(block, 3, 12, placement == "pre")(x, mask)
    if placement == "pre":
        x = nn.functional.layer_norm(x, (12,), model.last_norm.weight, model.last_norm.bias)
    torch.testing.assert_close(model(tokens), x @ model.output.weight.T)


def test_attention_weights_equal_torch_multihead_attention():
    model = wild(Transformer(1, 12, 3, outputs=2, context=6, features=4, norm=None, positions=None))
    values = torch.randn(2, 6, 4, dtype=torch.float64)
    block = model.blocks[0]
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double()
    theirs.load_state_dict(
        {
            "in_proj_weight": block.attention.qkv.weight,
            "in_proj_bias": block.attention.qkv.bias,
            "out_proj.weight": block.attention.output.weight,
            "out_proj.bias": block.attention.output.bias,
        }
    )
    x = values @ model.input.weight.T
    mask = torch.ones(6, 6).triu(1).bool()
    mixed, weights = theirs(x, x, x, attn_mask=mask, average_attn_weights=False)
    record = model.activations(values)
    torch.testing.assert_close(record["blocks.0.attention"], weights)
    y = x + mixed
    torch.testing.assert_close(record["blocks.0"], y + block.mlp(y))


def test_pre_post_norms_the_branch_input_and_the_sum():
    model = wild(Transformer(1, 8, 2, outputs=2, context=6, features=4, placement="pre-post", affine=False))
    values = torch.randn(2, 6, 4, dtype=torch.float64)
    record, block = model.activations(values), model.blocks[0]
    norm = lambda x: nn.functional.layer_norm(x, (8,))  # noqa: E731
    x = record["embedding"]
    mask = torch.full((6, 6), -math.inf, dtype=torch.float64).triu(1)
    x = norm(x + block.attention(norm(x), mask)[0])
    torch.testing.assert_close(record["blocks.0"], norm(x + block.mlp(norm(x))))


def test_rms_norm_and_gated_mlp_equal_their_formulas():
    model = wild(Transformer(1, 8, 2, outputs=2, context=6, features=4, norm="rms", activation="gated"))
    x = torch.randn(3, 8, dtype=torch.float64)
    theirs = nn.RMSNorm(8, eps=1e-5).double()
    theirs.load_state_dict({"weight": model.last_norm.weight})
    torch.testing.assert_close(model.last_norm(x), theirs(x))
    mlp = model.blocks[0].mlp
    a, b = mlp.hidden(x).chunk(2, -1)
    torch.testing.assert_close(mlp(x), mlp.output(nn.GELU(approximate="tanh")(a) * b))


@pytest.mark.parametrize("read", [(0, 2, 4, 6), (1, 2, 5), (3,), "last"])
@pytest.mark.parametrize("layers", [1, 2])
def test_reading_some_positions_saves_work_but_changes_nothing(read, layers):
    options = dict(layers=layers, width=8, heads=2, outputs=3, context=7, features=4)
    every, some = wild(Transformer(**options)), wild(Transformer(**options, read=read))
    values = torch.randn(2, 7, 4, dtype=torch.float64)
    bias = torch.randn(1, 2, 7, 7, dtype=torch.float64)
    for inputs in (values, {"inputs": values, "bias": bias}):
        expected = every(inputs)[:, -1] if read == "last" else every(inputs)[:, list(read)]
        torch.testing.assert_close(some(inputs), expected)


def test_a_bias_of_minus_infinity_forbids_and_a_causal_net_ignores_the_future():
    model = wild(Transformer(2, 8, 2, outputs=3, context=6, features=4, causal=False))
    causal = wild(Transformer(2, 8, 2, outputs=3, context=6, features=4))
    values = torch.randn(2, 6, 4, dtype=torch.float64)
    mask = torch.full((6, 6), -math.inf, dtype=torch.float64).triu(1)
    torch.testing.assert_close(model({"inputs": values, "bias": mask}), causal(values))
    changed = values.clone()
    changed[:, 4:] += 1
    torch.testing.assert_close(causal(changed)[:, :4], causal(values)[:, :4])


def test_position_ids_are_summed_and_zero_adds_nothing():
    model = wild(Transformer(1, 8, 2, outputs=3, context=(6, 4), vocabulary=5, positions="ids"))
    tokens = torch.randint(5, (2, 3))
    ids = torch.tensor([[[0, 0], [1, 3], [5, 0]]] * 2)
    first, second = (table.weight.detach().clone() for table in model.position)
    first[0] = second[0] = 0
    expected = model.input.weight[tokens] + first[ids[..., 0]] + second[ids[..., 1]]
    torch.testing.assert_close(model.activations({"inputs": tokens, "positions": ids})["embedding"], expected)
    with pytest.raises(IndexError):
        model({"inputs": tokens, "positions": ids + 1})
    with pytest.raises(ValueError, match="needs a dict with 'inputs' and 'positions'"):
        model(tokens)


def test_tied_table_reads_out():
    model = wild(Transformer(1, 8, 2, context=6, vocabulary=5, tied=True, placement="post"))
    record = model.activations(torch.randint(5, (2, 3)))
    torch.testing.assert_close(record["outputs"], record["blocks.0"] @ model.input.weight.T)


def test_initialisations_have_their_deviations():
    size = dict(layers=2, width=96, heads=2, outputs=50, context=50, vocabulary=80)
    params = Transformer(**size).reset(Stream.of(0, "model"))
    for name, p in params.items():
        if "norm" in name or name.endswith("bias"):
            assert p.eq(
                1.0 if name.endswith("norm.weight") or ("norm" in name and "weight" in name) else 0.0
            ).all()
        else:
            expected = 0.02 / (2 if "attention.output" in name or "mlp.output" in name else 1)
            assert p.std().item() == pytest.approx(expected, rel=0.06), name
    params = Transformer(**size, init={"position": 0.25, "output": 0.1}).reset(Stream.of(0, "model"))
    for name, expected in {
        "input.weight": 0.02,
        "position.0.weight": 0.25,
        "blocks.1.attention.qkv.weight": 96**-0.5,
        "blocks.0.attention.output.weight": 96**-0.5 / 2,
        "blocks.0.mlp.hidden.weight": 96**-0.5,
        "blocks.1.mlp.output.weight": (4 * 96) ** -0.5 / 2,
        "output.weight": 0.1,
    }.items():
        assert params[name].std().item() == pytest.approx(expected, rel=0.06), name


def test_materialised_model_equals_a_functional_call():
    model = Transformer(1, 8, 2, outputs=3, context=6, features=4)
    params, x = model.reset(Stream.of(4, "model")), torch.randn(2, 6, 4)
    expected = functional_call(model, params, (x,))
    torch.testing.assert_close(materialise(model, 4)(x), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(norm="batch"), "norm: got 'batch', allowed: None, 'layer', 'rms'"),
        (dict(placement="sandwich"), "placement: got 'sandwich', allowed: 'pre', 'post', 'pre-post'"),
        (dict(activation="swish"), "activation: got 'swish', allowed: .*'gated'"),
        (dict(positions="rotary"), "positions: got 'rotary'"),
        (dict(features=3), "vocabulary, features: give exactly one, got 5 and 3"),
        (dict(heads=3), "heads: width 8 is no multiple of 3"),
        (dict(read=(2, 1)), r"read: expected increasing positions.*\(2, 1\)"),
        (dict(read="first"), "read: got 'first', allowed: 'every', 'last'"),
        (dict(outputs=None), "outputs: .*tied=True"),
        (dict(init={"qk": 1.0}), "init: got 'qk', allowed: 'input', 'position'"),
        (dict(layers=0), "layers: expected an integer of at least 1, got 0"),
        (dict(context=(3, 3)), "context: several tables need positions='ids'"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Transformer(**{"layers": 1, "width": 8, "heads": 2, "outputs": 3, "vocabulary": 5, **options})


def test_sequences_beyond_the_context_are_refused():
    model = Transformer(1, 8, 2, outputs=3, context=4, vocabulary=5, read=(0, 3))
    with pytest.raises(ValueError, match="5 positions, allowed: context 4"):
        model(torch.zeros(1, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="position 3 is outside a sequence of 3"):
        model(torch.zeros(1, 3, dtype=torch.int64))
