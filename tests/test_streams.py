import numpy as np
import pytest
import torch
from scipy import stats
from torch.func import vmap

from reprise.streams import Stream, philox


def reference(counter, key):
    """Philox4x32-10 with Python integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c[0], 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c[2], 2**32)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


def words(*values):
    return tuple(torch.tensor(v, dtype=torch.int64) for v in values)


# Known answers published with Random123.
@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_answers(counter, key, answer):
    assert [int(w) for w in philox(words(*counter), words(*key))] == list(answer)
    assert reference(counter, key) == list(answer)


def test_philox_agrees_with_python_integers():
    rng = np.random.default_rng(0)
    for _ in range(50):
        counter, key = rng.integers(0, 2**32, 4).tolist(), rng.integers(0, 2**32, 2).tolist()
        assert [int(w) for w in philox(words(*counter), words(*key))] == reference(counter, key)


def test_words_are_counter_step_purpose_branch():
    import zlib

    seed = 2**40 + 5
    stream = Stream.of(seed, "run").at(7).fold(3)
    key = (seed % 2**32, (seed >> 32) ^ zlib.crc32(b"run"))
    expected = [w for block in range(3) for w in reference((block, 7, zlib.crc32(b"x"), 3), key)]
    assert stream.words("x", 10).tolist() == expected[:10]


def test_a_draw_depends_on_seed_role_purpose_step_and_branch_only():
    one = Stream.of(3, "run").at(5).words("x", 9)
    assert torch.equal(one, Stream.of(3, "run").at(5).words("x", 9))
    others = [
        Stream.of(4, "run").at(5).words("x", 9),
        Stream.of(3, "task").at(5).words("x", 9),
        Stream.of(3, "run").at(6).words("x", 9),
        Stream.of(3, "run").at(5).words("y", 9),
        Stream.of(3, "run").at(5).fold(1).words("x", 9),
    ]
    assert all(not torch.equal(one, other) for other in others)


def test_draws_under_vmap_equal_draws_alone():
    keys = torch.stack([Stream.of(s).key for s in range(5)])
    steps = torch.arange(4)
    zero = torch.tensor(0)

    def draw(key, step):
        stream = Stream(key, step, zero)
        order = stream.permutation("p", 11)
        return stream.words("w", 6), stream.integers("i", 9, (3,)), order, stream.normal("n", (5,))

    batched = vmap(vmap(draw, (0, None)), (None, 0))(keys, steps)
    for t in range(4):
        for m in range(5):
            alone = draw(keys[m], steps[t])
            for b, a in zip(batched[:3], alone[:3], strict=True):
                assert torch.equal(b[t, m], a)
            torch.testing.assert_close(batched[3][t, m], alone[3], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_and_normal_have_their_distributions(dtype):
    stream = Stream.of(0)
    uniform, normal = stream.uniform("u", (20001,), dtype), stream.normal("n", (20001,), dtype)
    assert uniform.dtype == normal.dtype == dtype
    assert 0 < uniform.min() and uniform.max() < 1
    assert stats.kstest(uniform.numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest(normal.numpy(), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(normal[:10000], normal[10000:20000])[0, 1]) < 0.04


def test_normal_agrees_between_dtypes_to_rounding():
    single, double = (Stream.of(1).normal("n", (1000,), d) for d in (torch.float32, torch.float64))
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


def test_integers_and_permutations_are_uniform():
    drawn = Stream.of(2).integers("i", 7, (14000,))
    assert stats.chisquare(np.bincount(drawn, minlength=7)).pvalue > 1e-3
    orders = torch.stack([Stream.of(2).at(t).permutation("p", 4) for t in range(2400)])
    assert all(sorted(row) == [0, 1, 2, 3] for row in orders.tolist())
    _, counts = np.unique(orders.numpy(), axis=0, return_counts=True)
    assert len(counts) == 24 and stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, True])
def test_wrong_seeds_are_refused(seed):
    with pytest.raises(ValueError, match="seed: expected an integer from 0"):
        Stream.of(seed)


def test_wrong_range_of_integers_is_refused():
    with pytest.raises(ValueError, match="high: expected an integer from 1"):
        Stream.of(0).integers("i", 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_integers_are_the_same_on_a_gpu():
    here, there = (Stream.of(7, "run", device).at(3) for device in ("cpu", "cuda"))
    assert torch.equal(here.words("w", 1001), there.words("w", 1001).cpu())
    assert torch.equal(here.permutation("p", 97), there.permutation("p", 97).cpu())
    torch.testing.assert_close(here.normal("n", (99,)), there.normal("n", (99,)).cpu(), rtol=1e-5, atol=1e-6)
