"""Tasks: splits, scalings, batches, losses, label noise."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn
from torch.func import grad, vmap

from reprise.models import Objective, materialise
from reprise.streams import Stream
from reprise.tasks import (
    CropAndFlip,
    Digits,
    Images,
    LabelNoise,
    Minimise,
    ModularArithmetic,
    SmoothedLabels,
    TargetNoise,
    TeacherRegression,
    cross_entropy,
    squared,
)
from reprise.tasks.losses import accuracy


def data(task, seed=0):
    return task.data(Stream.of(seed, "task"))


# --- batches


def test_batches_cover_every_epoch_once_and_drop_its_last_incomplete_batch():
    task = ModularArithmetic(5, share=0.9)  # 22 pairs
    store, stream = data(task), Stream.of(3, "run")
    where = {tuple(pair.tolist()): i for i, pair in enumerate(store["train"]["inputs"])}
    epochs = []
    for epoch in range(3):
        batches = [task.draw(store, stream.at(4 * epoch + k), 5) for k in range(4)]
        rows = [where[tuple(pair.tolist())] for batch in batches for pair in batch["inputs"]]
        assert len(set(rows)) == 20
        epochs.append(rows)
    assert epochs[0] != epochs[1] != epochs[2]
    assert task.draw(store, stream, None) is store["train"]


def test_a_batch_depends_on_key_and_step_only_alone_or_stacked():
    task = LabelNoise(Digits(n_train=50, n_test=10), share=0.4)
    store = data(task)
    keys = torch.stack([Stream.of(seed, "run").key for seed in range(3)])
    zero, steps = torch.zeros((), dtype=torch.int64), torch.tensor([0, 7, 12])
    draw = lambda key, step: task.draw(store, Stream(key, step, zero), 16)  # noqa: E731
    stacked = vmap(draw)(keys, steps)
    for i in range(3):
        alone = task.draw(store, Stream.of(i, "run").at(steps[i]), 16)
        for name, value in alone.items():
            assert torch.equal(stacked[name][i], value)


def test_batch_size_is_checked():
    task = ModularArithmetic(5)
    with pytest.raises(
        ValueError, match="batch: expected a number from 1 to the 12 training examples, got 13"
    ):
        task.draw(data(task), Stream.of(0, "run"), 13)


def test_members_that_differ_in_varying_options_share_a_program():
    assert Digits(n_train=5).program == Digits(n_train=6, scaling="centred").program
    assert Digits().program != Digits(logits=torch.float64).program
    inner = Digits()
    assert LabelNoise(inner, 0.1).program == LabelNoise(Digits(n_train=3), 0.2).program
    assert LabelNoise(inner).program != SmoothedLabels(inner).program


# --- digits and images


def test_digits_split_is_seeded_and_disjoint():
    a, b, c = data(Digits(n_train=200), 0), data(Digits(n_train=200), 0), data(Digits(n_train=200), 1)
    assert torch.equal(a["train"]["inputs"], b["train"]["inputs"])
    assert not torch.equal(a["train"]["inputs"], c["train"]["inputs"])
    assert a["train"]["inputs"].shape == (200, 64) and a["test"]["inputs"].shape == (1597, 64)
    everything = torch.cat([a["train"]["inputs"], a["test"]["inputs"]])
    assert everything.min() == 0 and everything.max() == 1
    from sklearn.datasets import load_digits

    assert everything.sum().item() == pytest.approx(load_digits().data.sum() / 16)
    assert data(Digits(n_train=200, n_test=30))["test"]["inputs"].shape == (30, 64)


def test_scalings():
    unit = data(Digits(n_train=300))
    train, test = (unit[k]["inputs"].numpy() for k in ("train", "test"))
    mean = train.mean(0)

    def check(expected, **options):
        result = data(Digits(n_train=300, **options))
        for name, value in zip(("train", "test"), expected, strict=True):
            np.testing.assert_allclose(result[name]["inputs"].numpy(), value, atol=1e-12)

    check([(x - mean) / (train - mean).std() for x in (train, test)], scaling="centred")
    check([(x - mean) / 0.3 for x in (train, test)], scaling="centred", scale=0.3)
    deviation = np.where(train.std(0) > 0, train.std(0), 1)
    check([(x - mean) / deviation for x in (train, test)], scaling="standardised")
    check(
        [3 * x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, test)],
        scaling="fixed norm",
        scale=3.0,
    )
    pca = PCA(4, svd_solver="full", whiten=True).fit(train)
    ours = data(Digits(n_train=300, components=4))["test"]["inputs"].numpy()
    theirs = pca.transform(test) * np.sqrt(300 / 299)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-9)


def test_labels():
    classes = data(Digits(n_train=50))["train"]["labels"]
    options = dict(n_train=50, loss_name="squared")
    one_hot = data(Digits(labels="one-hot", **options))["train"]["targets"]
    assert torch.equal(one_hot.argmax(1), classes) and one_hot.sum() == 50
    assert torch.equal(data(Digits(labels="signs", **options))["train"]["targets"], 2 * one_hot - 1)
    halves = data(Digits(labels="halves", **options))["train"]
    assert torch.equal(halves["targets"][:, 0] > 0, classes >= 5)
    assert Digits(labels="halves", **options).accuracy(halves["targets"], halves) == 1


def test_bundled_mnist_has_200_pictures_of_each_digit():
    store = data(Images(n_train=1500, flat=False))
    assert store["train"]["inputs"].shape == (1500, 1, 28, 28) and store["test"]["inputs"].shape == (
        500,
        1,
        28,
        28,
    )
    labels = torch.cat([store[k]["labels"] for k in ("train", "test")])
    assert torch.bincount(labels).tolist() == [200] * 10
    pixels = torch.cat([store[k]["inputs"] for k in ("train", "test")])
    assert 0.12 < pixels.mean() < 0.145 and 0.3 < pixels.std() < 0.32


def test_crop_and_flip_equals_padding_and_cutting():
    task = CropAndFlip(Images(n_train=8, n_test=1, flat=False), margin=3)
    store, stream = data(task), Stream.of(0, "run").at(5)
    x, moved = store["train"]["inputs"], task.draw(store, stream, None)["inputs"]
    down, right = stream.integers("crop", 7, (2, 8))
    flip = stream.integers("flip", 2, (8, 1))[:, 0]
    assert 0 < flip.sum() < 8
    for i in range(8):
        padded = nn.functional.pad(x[i], (3, 3, 3, 3))[:, down[i] : down[i] + 28, right[i] : right[i] + 28]
        assert torch.equal(moved[i], padded.flip(-1) if flip[i] else padded)


# --- losses


def test_losses_equal_torch():
    outputs, targets, labels = torch.randn(6, 4), torch.randn(6, 4), torch.randint(4, (6,))
    torch.testing.assert_close(cross_entropy(outputs, labels), nn.functional.cross_entropy(outputs, labels))
    soft = torch.softmax(targets, 1)
    torch.testing.assert_close(cross_entropy(outputs, soft), nn.functional.cross_entropy(outputs, soft))
    assert cross_entropy(outputs, labels, logits=torch.float64).dtype == torch.float64
    total = nn.functional.mse_loss(outputs, targets, reduction="sum")
    for reduction, count in (("mean", 24), ("mean-examples", 6), ("sum", 1)):
        torch.testing.assert_close(squared(outputs, targets, half=False, reduction=reduction), total / count)
        torch.testing.assert_close(
            squared(outputs, targets, half=True, reduction=reduction), total / count / 2
        )
    assert accuracy(torch.eye(4), torch.tensor([0, 1, 2, 0])) == 0.75


def test_float32_cross_entropy_gradient_rounds_to_zero_beyond_a_margin():
    """The start of a Slingshot: a float32 loss of exactly 0 whose wrong classes still have a gradient."""
    logits, label = torch.tensor([[20.0, 0.0, 0.0]]), torch.tensor([0])
    gradient = grad(lambda z: cross_entropy(z, label))(logits)[0]
    assert gradient[0] == 0 and gradient[1] > 0
    gradient = grad(lambda z: cross_entropy(z, label, logits=torch.float64))(logits)[0]
    assert gradient[0] < 0


# --- labels that change


def test_label_noise_is_wrong_uniform_and_new_at_every_visit():
    task = LabelNoise(Digits(n_train=1000, n_test=1), share=0.4)
    store, stream = data(task), Stream.of(0, "run")
    clean = store["train"]["labels"]
    noisy = torch.stack([task.draw(store, stream.at(t), None)["targets"] for t in range(30)])
    hit = noisy != clean
    assert hit.double().mean().item() == pytest.approx(0.4, abs=0.012)
    shifts = torch.bincount(((noisy - clean) % 10)[hit], minlength=10)
    assert shifts[0] == 0 and (shifts[1:] / shifts.sum() * 9 - 1).abs().max() < 0.15
    assert not torch.equal(hit[0], hit[1])
    assert torch.equal(task.draw(store, stream, None)["labels"], clean)


def test_target_noise_has_its_deviation_and_can_be_frozen():
    inner = TeacherRegression(lambda x: torch.tanh(x[:, 0]), 4, 3000)
    fresh, frozen = TargetNoise(inner, 2.0), TargetNoise(inner, 2.0, frozen=True)
    clean = data(inner)["train"]["targets"]
    for task in (fresh, frozen):
        store = data(task)
        noise = [task.draw(store, Stream.of(0, "run").at(t), None)["targets"] - clean for t in range(2)]
        assert noise[0].std().item() == pytest.approx(2.0, rel=0.06)
        assert torch.equal(*noise) == (task is frozen)


def test_smoothed_labels_are_the_mean_of_label_noise():
    store = data(SmoothedLabels(Digits(n_train=20), share=0.36))
    targets = store["train"]["targets"]
    assert targets.gather(1, store["train"]["labels"].unsqueeze(1)).eq(0.64).all()
    torch.testing.assert_close(targets.sum(1), torch.ones(20, dtype=torch.float64))
    assert store["test"]["targets"].dtype == torch.int64


# --- modular arithmetic, teachers, objectives


@pytest.mark.parametrize("operation", ["+", "-", "*", "/"])
def test_modular_answers(operation):
    pairs, answers = ModularArithmetic(7, operation).pairs()
    assert len(pairs) == (42 if operation == "/" else 49)
    for (a, b), c in zip(pairs.tolist(), answers.tolist(), strict=True):
        if operation == "/":
            assert c * b % 7 == a
        else:
            assert c == eval(f"({a} {operation} {b}) % 7")


def test_modular_split_and_encodings():
    ids, one_hot, tokens = (
        data(ModularArithmetic(31, "-", 0.9, encoding=e)) for e in ("ids", "one-hot", "tokens")
    )
    assert len(ids["train"]["inputs"]) == 864 and len(ids["test"]["inputs"]) == 97
    assert len({tuple(p) for split in ("train", "test") for p in ids[split]["inputs"].tolist()}) == 961
    assert torch.equal(one_hot["train"]["inputs"].reshape(-1, 2, 31).argmax(2), ids["train"]["inputs"])
    assert torch.equal(tokens["test"]["inputs"][:, ::2], ids["test"]["inputs"])
    assert tokens["test"]["inputs"][0, [1, 3]].tolist() == [31, 32]


def test_teacher_regression():
    store = data(
        TeacherRegression(
            lambda x: x @ torch.ones(3, 2, dtype=x.dtype), 3, 5000, 7, inputs="sphere", noise=0.1
        )
    )
    train = store["train"]
    torch.testing.assert_close(train["inputs"].norm(dim=1), torch.ones(5000, dtype=torch.float64))
    residual = train["targets"] - train["inputs"].sum(1, keepdim=True)
    assert residual.std().item() == pytest.approx(0.1, rel=0.05)
    torch.testing.assert_close(
        store["test"]["targets"], store["test"]["inputs"].sum(1, keepdim=True).expand(7, 2)
    )
    assert data(TeacherRegression(None, 3, 4))["train"]["targets"].shape == (4, 1)


def test_minimise_takes_the_output_as_the_loss():
    model, task = materialise(Objective(lambda x: (x**2).sum(), (1.0, 2.0)), 0), Minimise()
    batch = task.draw(data(task), Stream.of(0, "run"), None)
    assert task.loss(model(batch["inputs"]), batch).item() == 5
    with pytest.raises(ValueError, match=r"expected a scalar objective, got shape \(2,\)"):
        task.loss(torch.ones(2), batch)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Digits(scaling="zca"),
            "scaling: got 'zca', allowed: 'unit', 'centred', 'standardised', 'fixed norm'",
        ),
        (lambda: Digits(labels="one-hot"), "labels: got 'one-hot' with loss_name='cross-entropy'"),
        (
            lambda: Digits(loss_name="squared", labels="signs", reduction="none"),
            "reduction: got 'none', allowed: 'mean'",
        ),
        (lambda: data(Digits(n_train=1800)), "n_train, n_test: got 1800 and None, but there are 1797"),
        (lambda: data(Digits(n_train=1700, n_test=100)), "n_train, n_test: got 1700 and 100"),
        (lambda: Images(name="svhn"), "name: got 'svhn', allowed: 'mnist', 'cifar-10', 'mnist-2k'"),
        (lambda: Images(components=3, flat=False), "components: got 3, allowed with flat=True only"),
        (lambda: LabelNoise(Digits(), 1.2), "share: expected a number from 0 to 1, got 1.2"),
        (lambda: TargetNoise(Digits(), -1.0), "deviation: expected a number of at least 0, got -1.0"),
        (lambda: ModularArithmetic(9, "/"), "p: expected a prime for '/', got 9"),
        (lambda: ModularArithmetic(7, "^"), "operation: got '\\^', allowed"),
        (lambda: ModularArithmetic(7, share=0), "share: expected a number above 0 and up to 1, got 0"),
        (
            lambda: TeacherRegression(None, 3, 4, inputs="cube"),
            "inputs: got 'cube', allowed: 'normal', 'sphere'",
        ),
    ],
)
def test_wrong_options_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
