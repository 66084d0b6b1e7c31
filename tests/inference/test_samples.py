"""Samples on their way through layers: what they are, when layers run, and what their digest is of."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fullconv.inference.samples import Samples, digest


class Counted(nn.Module):
    """Adds one in place, and counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x.add_(1)


def layer(seed: int = 0, padding: int = 1) -> nn.Conv2d:
    torch.manual_seed(seed)
    return nn.Conv2d(3, 3, 3, padding=padding).eval()


@given(reads=st.lists(st.booleans(), min_size=1, max_size=6), count=st.integers(0, 3))
def test_they_are_what_the_layers_make_of_them(reads: list[bool], count: int) -> None:
    inputs = [torch.rand(1, 3, 4 + n, 5) for n in range(count)]
    before = [x.clone() for x in inputs]
    samples, layers = Samples(inputs), [Counted() for _ in reads]
    for number, (counted, read) in enumerate(zip(layers, reads, strict=True), 1):
        samples.through(counted)
        if read:
            for _ in range(2):
                found = list(samples)
                assert len(found) == len(samples) == count
                assert all(torch.allclose(y, x + number) for x, y in zip(before, found, strict=True))
    last = max((number for number, read in enumerate(reads, 1) if read), default=0)
    assert [each.calls for each in layers] == [count if number <= last else 0 for number in range(1, len(reads) + 1)]
    assert all(torch.equal(x, same) for x, same in zip(inputs, before, strict=True)), "inputs are left as they are"


def test_of_samples_is_themselves() -> None:
    samples = Samples([torch.zeros(1, 3, 4, 4)])
    assert Samples.of(samples) is samples
    assert torch.equal(next(iter(Samples.of([torch.ones(1, 1, 1, 1)]))), torch.ones(1, 1, 1, 1))


def test_a_digest_is_of_inputs_and_layers() -> None:
    def digest_after(x: Tensor, *layers: nn.Module, read: bool = False) -> str:
        samples = Samples([x, x])
        for each in layers:
            samples.through(each)
            if read:
                assert len(list(samples)) == 2
                assert samples.digest
        return samples.digest

    x = torch.rand(1, 3, 5, 6)
    known = digest_after(x, layer(), nn.ReLU())
    assert digest_after(x.clone(), layer(), nn.ReLU()) == known
    assert digest_after(x, layer(), nn.ReLU(), read=True) == known, "whether they were read does not count"
    others = [
        digest_after(2 * x, layer(), nn.ReLU()),
        digest_after(x, layer(1), nn.ReLU()),
        digest_after(x, layer(padding=0), nn.ReLU()),
        digest_after(x, layer()),
        digest_after(x),
        digest_after(x, nn.ReLU(), layer()),
        digest_after(x[:, :, :, :5], layer(), nn.ReLU()),
    ]
    assert len({known, *others}) == 1 + len(others)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.int64, torch.bool])
def test_digests_of_tensors(dtype: torch.dtype) -> None:
    x = torch.tensor([[0, 1, 1], [1, 0, 1]]).to(dtype)
    known = digest([("a", x)])
    assert digest([("a", x.T.contiguous().T)]) == known, "the layout in memory does not count"
    others = [
        [("b", x)],
        [("a", x.reshape(3, 2))],
        [("a", ~x if dtype == torch.bool else 1 - x)],
        [("a", x), ("a", x)],
        [],
    ]
    assert len({known, *(digest(each) for each in others)}) == 6
    assert digest([("a", torch.tensor(1))]) != digest([("a", torch.tensor(2))])
