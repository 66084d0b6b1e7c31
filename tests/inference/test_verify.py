"""How far an answer is from the plain net's, by hand, and that differences are found where there are some."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from fullconv.errors import OptionError
from fullconv.inference import cropped as module_cropped
from fullconv.inference import verify as module
from fullconv.inference.engines import Engine, engine
from fullconv.inference.reference import Reference
from fullconv.inference.staged import StagedNet
from fullconv.inference.verify import WINDOW, WINDOWS, Verification, verify
from fullconv.nets import FCN, InputOptions
from fullconv.nets.rectangles import Interval
from thin_nets import noise, reading, thin

SIZE = (300, 170)


def other(net: FCN, how: float, **options: Any) -> Engine:
    """An engine of another net: all scores of class 1 are larger by `how`."""
    runner = engine(net, **options)
    changed = FCN(net.options)
    changed.load_state_dict(net.state_dict())
    with torch.no_grad():
        changed.heads["semantic"].score["image"]["8"].bias[1] += how  # type: ignore[union-attr, operator, index]
    return replace(runner, cut=StagedNet.of(changed.eval()))


def scores_of(net: FCN, x: Tensor) -> Tensor:
    """(K, H, W) of the plain net."""
    return Reference(net).coarse({"image": x})["semantic"].upsample()[0]


def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a whole image."""
    monkeypatch.setattr(module, "free_memory", lambda: 0)


class TestWhole:
    @pytest.mark.parametrize("tile", ["auto", "off", 64, 100])
    @pytest.mark.parametrize("name", ["fcn8s-slim", "fcn8s-resnet18"])
    def test_an_engine_is_the_plain_net_to_rounding(self, name: str, tile: int | str) -> None:
        found = verify(engine(thin(name), tile=tile), SIZE, reading(noise(1, 3, *SIZE)))
        assert found.whole
        assert found.pixels == SIZE[0] * SIZE[1], "every pixel once"
        assert 0 < found.difference <= 1e-5
        assert found.differing <= 5
        assert found.precision == "float32"

    def test_the_plain_net_sees_all_of_it_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        net, coarse, sizes = thin("fcn8s-slim"), FCN.coarse, []

        def seen(self: FCN, x: Any) -> Any:
            sizes.append(tuple(x["image"].shape[2:]))
            return coarse(self, x)

        monkeypatch.setattr(FCN, "coarse", seen)
        verify(engine(net, tile=100), SIZE, reading(noise(1, 3, *SIZE)))
        # The other measures what a net holds.
        assert [size for size in sizes if size != (module_cropped.SEEN,) * 2] == [SIZE]

    def test_an_unknown_task_is_named(self) -> None:
        with pytest.raises(OptionError, match="nope"):
            verify(engine(thin("fcn8s-slim")), SIZE, reading(noise(1, 3, *SIZE)), task="nope")

    def test_an_unpooling_net(self) -> None:
        runner = engine(thin("fcn8s-slim", 3, upsampling="unpooling"), tile=64)
        found = verify(runner, (120, 90), reading(noise(1, 3, 120, 90)))
        assert (found.whole, found.pixels) == (True, 120 * 90)
        assert found.difference <= 1e-5

    def test_bfloat16_is_further_off(self) -> None:
        found = verify(engine(thin("fcn8s-slim"), precision="bfloat16"), SIZE, reading(noise(1, 3, *SIZE)))
        assert 1e-4 < found.difference < 0.05
        assert 0 < found.differing < found.pixels
        assert found.precision == "bfloat16"

    @pytest.mark.parametrize("tile", ["auto", 100])
    def test_what_differs_is_counted(self, tile: int | str) -> None:
        net, x = thin("fcn8s-slim"), noise(1, 3, *SIZE)
        plain = scores_of(net, x)
        runner = other(net, 10, tile=tile)
        changed = scores_of(runner.cut.net, x)
        found = verify(runner, SIZE, reading(x))
        assert found.difference == pytest.approx(float((changed - plain).abs().max() / plain.abs().max()), rel=1e-3)
        assert found.differing == pytest.approx(int((changed.argmax(0) != plain.argmax(0)).sum()), abs=3)
        assert found.differing > 100
        assert found.ties == 0

    def test_ties_are_told_apart(self) -> None:
        """Classes 0 and 1 score the same in the plain net; in the other, 1 is ahead by very little."""
        net = thin("fcn8s-slim")
        with torch.no_grad():
            for layer in net.heads["semantic"].score["image"].values():  # type: ignore[union-attr, operator]
                layer.weight[1], layer.bias[1] = layer.weight[0], layer.bias[0]
            for layer in net.heads["semantic"].upscore.values():  # type: ignore[union-attr]
                if hasattr(layer, "weight"):
                    layer.weight[1] = layer.weight[0]
        x = noise(1, 3, *SIZE)
        first = int((scores_of(net, x).argmax(0) == 0).sum())
        found = verify(other(net, 0.001), SIZE, reading(x))
        assert first > 100
        assert found.ties == pytest.approx(first, abs=first // 20)
        assert found.ties <= found.differing

    def test_of_a_task(self) -> None:
        net = thin("siftflow-fcn16s", None, width=1 / 16)
        for task in (None, *net.heads):
            found = verify(engine(net), (85, 90), reading(noise(1, 3, 85, 90)), task=task)
            assert found.difference <= 1e-5
            assert found.pixels == 85 * 90

    def test_of_one_class(self) -> None:
        found = verify(engine(thin("fcn8s-slim", 1)), (50, 40), reading(noise(1, 3, 50, 40)))
        assert (found.differing, found.ties) == (0, 0)

    def test_of_several_bands(self) -> None:
        inputs = {"ms": InputOptions((30000.0,) * 4, (20000.0,) * 4, bands=(1, 2, 3, 4))}
        x = (noise(1, 4, 70, 60).int() * 257).to(torch.uint16)
        found = verify(engine(thin("fcn8s-slim", inputs=inputs)), (70, 60), reading({"ms": x}))
        assert found.difference <= 1e-5


class TestWindows:
    @pytest.mark.parametrize("size", [(700, 650), (300, 170), (1, 900), (40, 1)], ids=str)
    @pytest.mark.parametrize("tile", ["auto", 400])
    def test_are_compared_where_the_whole_does_not_fit(
        self, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], tile: int | str
    ) -> None:
        no_room(monkeypatch)
        found = verify(engine(thin("fcn8s-slim", width=1 / 16), tile=tile), size, reading(noise(1, 3, *size)))
        assert not found.whole
        assert 0 < found.pixels <= WINDOWS * WINDOW**2
        assert found.difference <= 1e-5

    def test_are_of_the_seed_and_within_the_image(self, monkeypatch: pytest.MonkeyPatch) -> None:
        no_room(monkeypatch)
        x, seen = noise(1, 3, 900, 640), []

        def read(rows: Interval, columns: Interval) -> dict[str, Tensor]:
            assert 0 <= rows[0] < rows[1] <= 900
            assert 0 <= columns[0] < columns[1] <= 640
            seen.append((rows, columns))
            return {"image": x[:, :, slice(*rows), slice(*columns)]}

        runner = engine(thin("fcn8s-slim", width=1 / 16), tile=320)
        one, again = verify(runner, (900, 640), read), verify(runner, (900, 640), read)
        assert one == again
        assert seen[: len(seen) // 2] == seen[len(seen) // 2 :]
        before = len(seen)
        verify(runner, (900, 640), read, seed=1)
        assert seen[before:] != seen[: before // 2]

    def test_reach_every_edge(self) -> None:
        parts = [((0, 300), (0, 257)), ((300, 310), (0, 257))]
        drawn = [each for seed in range(100) for each in module._windows(parts, Random(seed))]
        assert {rows for rows, _ in drawn if rows[0] >= 300} == {(300, 310)}, "all of a small part"
        upper = [(rows, columns) for rows, columns in drawn if rows[0] < 300]
        assert {columns for _, columns in drawn} == {(0, 256), (1, 257)}
        assert {rows[1] - rows[0] for rows, _ in upper} == {WINDOW}
        assert {0, 44} <= {rows[0] for rows, _ in upper}
        assert max(rows[1] for rows, _ in upper) == 300

    def test_find_what_differs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        no_room(monkeypatch)
        found = verify(other(thin("fcn8s-slim"), 10), SIZE, reading(noise(1, 3, *SIZE)))
        assert found.difference > 0.01
        assert found.differing > 100

    def test_the_whole_is_taken_as_soon_as_there_is_room(self, monkeypatch: pytest.MonkeyPatch) -> None:
        runner, x = engine(thin("fcn8s-slim", width=1 / 16)), noise(1, 3, 60, 50)
        monkeypatch.setattr(module, "free_memory", lambda: 1 << 40)
        assert verify(runner, (60, 50), reading(x)).whole
        no_room(monkeypatch)
        assert not verify(runner, (60, 50), reading(x)).whole


def test_text() -> None:
    whole = Verification(1.23e-6, 4567, 12, 890_000, True, "float32")
    assert str(whole) == (
        "against the plain net on the whole image: largest score difference 1.2e-06 of the largest score (float32), "
        "4,567 of 890,000 labels differ (12 of them exact ties)"
    )
    windows = Verification(0.01, 0, 0, 100, False, "bfloat16")
    assert str(windows) == (
        "against the plain net on 5 windows: largest score difference 1.0e-02 of the largest score (bfloat16), "
        "0 of 100 labels differ"
    )
