"""What int8 is calibrated on: some of the files that are labelled, read as the net reads them."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import rasters
from fullconv.errors import OptionError
from fullconv.inference import calibration as module
from fullconv.inference.calibration import IMAGES, SIDE, calibration, digest_of
from fullconv.inference.jobs import plan
from fullconv.inference.model import Model
from fullconv.nets import InputOptions
from makers import make_wafer_maps, save
from thin_nets import thin


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(thin("fcn8s-slim", width=1 / 16))


def numbered(folder: Path, count: int) -> Path:
    """Pictures of one value each, that of their place in the order of names."""
    for index in range(count):
        save(folder / f"{index:04}.png", np.full((4, 5, 3), index, np.uint8))
    return folder


def values(samples: list[dict[str, torch.Tensor]]) -> list[int]:
    return [int(sample["image"][0, 0, 0, 0]) for sample in samples]


class TestPictures:
    def test_are_read_as_the_net_takes_them(self, model: Model, tmp_path: Path) -> None:
        picture = rasters.noise(30, 40)
        (found,) = calibration(model, plan([save(tmp_path / "a.png", picture)], tmp_path / "out"))
        assert torch.equal(found["image"], torch.from_numpy(picture).permute(2, 0, 1)[None])

    def test_are_cut(self, model: Model, tmp_path: Path) -> None:
        picture = rasters.noise(SIDE + 9, SIDE + 2)
        (found,) = calibration(model, plan([save(tmp_path / "a.png", picture)], tmp_path / "out"))
        assert torch.equal(found["image"][0], torch.from_numpy(picture[:SIDE, :SIDE]).permute(2, 0, 1))

    @pytest.mark.parametrize("count", [1, 5, IMAGES, IMAGES + 1, 2 * IMAGES - 1, 2 * IMAGES, 3 * IMAGES + 7])
    def test_are_drawn_evenly(self, model: Model, tmp_path: Path, count: int) -> None:
        found = values(calibration(model, plan([numbered(tmp_path / "in", count)], tmp_path / "out")))
        assert min(count, IMAGES / 2) < len(found) + 1
        assert len(found) <= IMAGES
        assert found[0] == 0
        steps = {b - a for a, b in pairwise(found)} or {1}
        assert len(steps) == 1, "every n-th"
        assert found[-1] + max(steps) >= count, "up to the last ones"

    def test_that_cannot_be_read_are_left_out(self, model: Model, tmp_path: Path) -> None:
        folder = numbered(tmp_path / "in", 4)
        (folder / "0001.png").write_bytes(b"no picture")
        assert values(calibration(model, plan([folder], tmp_path / "out"))) == [0, 2, 3]

    def test_none_can_be_read(self, model: Model, tmp_path: Path) -> None:
        folder = numbered(tmp_path / "in", 1)
        (folder / "0000.png").write_bytes(b"no picture")
        with pytest.raises(OptionError, match="int8 is calibrated on the images that are labelled, and none of them"):
            calibration(model, plan([folder], tmp_path / "out"))

    def test_beside_wafer_maps(self, model: Model, tmp_path: Path) -> None:
        """Maps in files count as well."""
        make_wafer_maps(tmp_path / "in")
        numbered(tmp_path / "in", 2)
        jobs = plan([tmp_path / "in"], tmp_path / "out")
        assert len(jobs) > 2
        found = values(calibration(model, jobs))
        assert found[:2] == [0, 1]
        assert len(found) == len(jobs), "maps are rendered as they are labelled"


class TestScenes:
    def test_give_windows(self, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "SIDE", 16)
        scene = rasters.noise(60, 50)
        jobs = plan([rasters.write(tmp_path / "a.tif", scene)], tmp_path / "out")
        found, again = calibration(model, jobs), calibration(model, jobs)
        other = calibration(model, jobs, seed=1)
        assert [each["image"].shape for each in found] == [(1, 3, 16, 16)] * 4
        inside = np.lib.stride_tricks.sliding_window_view(scene, (16, 16), (0, 1))
        for each in found:
            assert (inside == each["image"][0].numpy()).all(axis=(2, 3, 4)).sum() == 1, "a window of the scene"
        assert all(torch.equal(a["image"], b["image"]) for a, b in zip(found, again, strict=True))
        assert not all(torch.equal(a["image"], b["image"]) for a, b in zip(found, other, strict=True))

    @pytest.mark.parametrize("size", [(1, 1), (7, 600), (600, 3)], ids=str)
    def test_smaller_than_a_window(self, model: Model, tmp_path: Path, size: tuple[int, int]) -> None:
        path = rasters.write(tmp_path / "a.tif", rasters.noise(*size))
        for each in calibration(model, plan([path], tmp_path / "out")):
            assert each["image"].shape == (1, 3, min(size[0], SIDE), min(size[1], SIDE))

    def test_every_window_can_be_drawn(self) -> None:
        drawn = {module._window(SIDE + 3, random.Random(seed)) for seed in range(200)}
        assert drawn == {(start, start + SIDE) for start in range(4)}

    def test_of_several_bands(self, tmp_path: Path) -> None:
        inputs = {"ms": InputOptions((9.0,) * 2, (9.0,) * 2, bands=(3, 1))}
        model = Model(thin("fcn8s-slim", inputs=inputs, width=1 / 16))
        scene = rasters.noise(20, 30, 3, "uint16")
        path = rasters.write(tmp_path / "a.tif", scene)
        found = calibration(model, plan([path], tmp_path / "out"))
        assert all(torch.equal(each["ms"][0], torch.from_numpy(scene[:, :, [2, 0]]).permute(2, 0, 1)) for each in found)

    def test_damaged_ones_are_left_out(self, model: Model, tmp_path: Path) -> None:
        good = rasters.write(tmp_path / "a.tif", rasters.noise(20, 30))
        bad = rasters.write(tmp_path / "b.tif", rasters.noise(200, 300))
        bad.write_bytes(bad.read_bytes()[: 20 << 10])
        assert len(calibration(model, plan([bad, good], tmp_path / "out"))) == 4

    def test_at_most_so_many(self, model: Model, tmp_path: Path) -> None:
        paths = [rasters.write(tmp_path / f"{i}.tif", rasters.noise(4, 5)) for i in range(10)]
        found = calibration(model, plan(paths, tmp_path / "out"))
        assert IMAGES / 2 <= len(found) <= IMAGES

    def test_are_drawn_evenly(self, model: Model, tmp_path: Path) -> None:
        paths = [
            rasters.write(tmp_path / f"{i:03}.tif", np.full((4, 5, 3), i, np.uint8)) for i in range(IMAGES // 4 * 2)
        ]
        found = values(calibration(model, plan(paths, tmp_path / "out")))
        assert sorted(set(found)) == list(range(0, len(paths), 2))


class TestDigest:
    def test_is_of_all_numbers_names_and_shapes(self) -> None:
        x = torch.rand(1, 3, 4, 5)
        known = digest_of([{"a": x, "b": x + 1}])
        assert digest_of([{"b": x + 1, "a": x.clone()}]) == known
        others: list[list[dict[str, torch.Tensor]]] = [
            [], [{"a": x}], [{"a": x}, {"b": x + 1}], [{"b": x, "a": x + 1}], [{"a": x.mT, "b": x + 1}],
        ]  # fmt: skip
        assert len({known, *map(digest_of, others)}) == 1 + len(others)


def test_several_inputs() -> None:
    net = thin("nyud-fcn32s-color-d", None, width=1 / 16)
    with pytest.raises(OptionError, match="int8 is calibrated on files of one input; this net has several"):
        calibration(Model(net), [])
