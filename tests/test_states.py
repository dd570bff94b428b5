import torch

from reprise.layout import Layout
from reprise.states import State, States

LAYOUT = Layout(("w",), ((2,),))


def state(value, digest):
    return State(torch.full((2,), float(value)), LAYOUT, digest)


def test_gather_puts_states_on_axes_of_their_own():
    place = lambda level, seed: state(10 * level + seed, f"{level} {seed}")  # noqa: E731
    found = States.gather(place, level=[1, 2], seed=range(3))
    assert found.coords == {"level": [1, 2], "seed": [0, 1, 2]}
    torch.testing.assert_close(found.stacked()[..., 0], torch.tensor([[10.0, 11, 12], [20, 21, 22]]))
    assert found.sel(level=2, seed=1).vector.tolist() == [21, 21]


def test_the_digest_of_gathered_states_follows_each_of_them():
    digests = ["a", "b"], ["a", "c"], ["b", "a"]
    found = {States.gather(lambda seed, d=d: state(0, d[seed]), seed=[0, 1]).digest for d in digests}
    assert len(found) == 3
