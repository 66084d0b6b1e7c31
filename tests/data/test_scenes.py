"""Data sets of files: several inputs and tasks of a scene, and what is told of files that do not fit."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fullconv.data.bands import BandsReader, Input
from fullconv.data.mask import MaskReader
from fullconv.data.pairs import pair_by_stem
from fullconv.data.sample import IMAGE, SEMANTIC, InputKind
from fullconv.data.scenes import FileDataset, Scene, Task, narrowed
from fullconv.errors import DataError, OptionError
from fullconv.labels import LabelSet
from inmemory import InMemory, one
from makers import CLASSES, make_folder, save, scene

LABELS = LabelSet.numbered(CLASSES)
TASK = Task(LABELS, MaskReader(CLASSES))
DEPTH = Input(BandsReader((1,)), InputKind(1, (1,), (1,), log=True))


def some_scenes(root: Path, count: int = 5) -> FileDataset:
    """One input, one task."""
    make_folder(root, "{kind}/{name}", {"train": count})
    scenes = pair_by_stem(str(root), root / "images", root / "masks")
    return FileDataset(str(root), "train", scenes, {SEMANTIC: TASK})


def both(root: Path, count: int = 2) -> FileDataset:
    """Colour and depth, classes and sides."""
    scenes = []
    for seed in range(count):
        image, mask = scene(seed)
        paths = {name: root / name / f"{seed}.png" for name in ("colour", "kind", "side")}
        save(paths["colour"], image)
        save(paths["kind"], mask)
        save(paths["side"], np.minimum(mask, 1))
        (root / "depth").mkdir(exist_ok=True)
        np.save(root / "depth" / f"{seed}.npy", mask.astype(np.uint16) * 1000)
        scenes.append(
            Scene(
                f"s{seed}",
                {"colour": paths["colour"], "depth": root / "depth" / f"{seed}.npy"},
                {"kind": paths["kind"], "side": paths["side"]},
            )
        )
    tasks = {"kind": TASK, "side": Task(LabelSet(("no", "yes")), MaskReader(2, {255: 1}), "never")}
    return FileDataset(str(root), "train", scenes, tasks, {"colour": Input(), "depth": DEPTH})


def test_samples_are_the_files(tmp_path: Path) -> None:
    dataset = some_scenes(tmp_path / "a folder, ünïcode")
    assert len(dataset) == 5
    assert dataset.names == ("0000", "0001", "0002", "0003", "0004")
    assert dataset.inputs == {IMAGE: InputKind()}
    assert dataset.labels == {SEMANTIC: LABELS}
    assert dataset.absent == {SEMANTIC: "predicted"}
    for index in (0, 3, -1):
        image, mask = scene(range(5)[index])
        found = dataset[index]
        np.testing.assert_array_equal(found.inputs[IMAGE], image)
        np.testing.assert_array_equal(found.masks[SEMANTIC], mask)
        assert found.name == dataset.names[index]
        assert found.size == mask.shape


def test_several_inputs_and_tasks(tmp_path: Path) -> None:
    dataset = both(tmp_path)
    assert dataset.inputs == {"colour": InputKind(), "depth": InputKind(1, (1,), (1,), log=True)}
    assert {task: labels.names for task, labels in dataset.labels.items()} == {
        "kind": ("0", "1", "2"),
        "side": ("no", "yes"),
    }
    assert dataset.absent == {"kind": "predicted", "side": "never"}
    for index in range(2):
        image, mask = scene(index)
        sample = dataset[index]
        assert list(sample.inputs) == ["colour", "depth"]
        np.testing.assert_array_equal(sample.inputs["colour"], image)
        np.testing.assert_array_equal(sample.inputs["depth"][:, :, 0], mask.astype(np.uint16) * 1000)
        assert sample.inputs["depth"].dtype == np.uint16
        np.testing.assert_array_equal(sample.masks["kind"], mask)
        np.testing.assert_array_equal(sample.masks["side"], mask > 0)
    scene_ = dataset.scenes[1]
    assert (scene_.image, scene_.mask) == (scene_.images["colour"], scene_.masks["kind"])


def test_what_is_left_out_is_not_read(tmp_path: Path) -> None:
    dataset = both(tmp_path)
    for name, gone in (("colour", "depth"), ("depth", "colour")):
        only = narrowed(dataset, [name])
        shutil.rmtree(tmp_path / gone)
        assert isinstance(only, FileDataset)
        assert only.inputs == {name: dataset.inputs[name]}
        assert list(only[0].inputs) == [name]
        assert list(only[0].masks) == ["kind", "side"]
        assert (only.names, only.split, only.source, only.absent) == (
            dataset.names,
            "train",
            str(tmp_path),
            dataset.absent,
        )
        only.fingerprint()
        dataset = both(tmp_path)


def test_all_inputs_are_the_data_set_itself(tmp_path: Path) -> None:
    dataset = both(tmp_path)
    assert narrowed(dataset, ["colour", "depth"]) is dataset
    assert narrowed(dataset, ["depth", "colour"]) is dataset
    assert list(narrowed(dataset, ["depth", "depth"]).inputs) == ["depth"]
    assert list(dataset.only(["depth", "colour"])[0].inputs) == ["depth", "colour"]


def test_inputs_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^unknown input of .* 'colr'; did you mean 'colour'\? Choices: colour, dep"):
        narrowed(both(tmp_path), ["colr"])
    arrays = InMemory([one(0)], inputs={IMAGE: InputKind(), "depth": InputKind(1)})
    assert narrowed(arrays, [IMAGE, "depth"]) is arrays
    with pytest.raises(
        OptionError, match=r"^arrays: has the inputs image, depth, the net takes image; use data with the net's inputs$"
    ):
        narrowed(arrays, [IMAGE])


def test_sizes_that_differ(tmp_path: Path) -> None:
    dataset = some_scenes(tmp_path, 1)
    save(dataset.scenes[0].mask, np.zeros((16, 12), np.uint8))
    with pytest.raises(DataError) as caught:
        dataset[0]
    assert "0000.png: is 16 x 12 (H x W), its image" in str(caught.value)
    assert str(caught.value).endswith(
        "is 12 x 16; the sides are swapped: only one of the two says in its EXIF that it is rotated; save both upright"
    )
    save(dataset.scenes[0].mask, np.zeros((6, 8), np.uint8))
    with pytest.raises(DataError, match=r"is 6 x 8 .* is 12 x 16; make a mask of the image's size"):
        dataset[0]


@pytest.mark.parametrize("which", ["depth", "side"])
def test_every_input_and_task_has_the_first_inputs_size(tmp_path: Path, which: str) -> None:
    dataset = both(tmp_path)
    path = (dataset.scenes[1].images | dataset.scenes[1].masks)[which]
    values = np.zeros((3, 4), np.uint8)
    np.save(path, values) if path.suffix == ".npy" else save(path, values)
    dataset[0]
    expected = f"{which}/{path.name}: is 3 x 4 (H x W), its image {tmp_path / 'colour' / '1.png'} is 12 x 16; make"
    with pytest.raises(DataError) as caught:
        dataset[1]
    assert expected in str(caught.value)


def test_fingerprint_is_of_names_sizes_and_labels(tmp_path: Path) -> None:
    dataset = some_scenes(tmp_path / "a")
    first = dataset.fingerprint()
    assert len(first) == 64
    shutil.copytree(tmp_path / "a", tmp_path / "b")  # with new modification times
    scenes = pair_by_stem("b", tmp_path / "b" / "images", tmp_path / "b" / "masks")
    copy = FileDataset("b", "train", scenes, {SEMANTIC: TASK})
    assert copy.fingerprint() == first
    colours = MaskReader(CLASSES, colors={(1, 2, 3): 0})
    others = [
        FileDataset("b", "train", scenes[1:], {SEMANTIC: TASK}),
        FileDataset("b", "train", scenes, {SEMANTIC: replace(TASK, labels=LabelSet(("x", "y", "z")))}),
        FileDataset("b", "train", scenes, {SEMANTIC: replace(TASK, reader=MaskReader(CLASSES, {1: 255}))}),
        FileDataset("b", "train", scenes, {SEMANTIC: replace(TASK, reader=colours)}),
        FileDataset("b", "train", [replace(scenes[0], name="x"), *scenes[1:]], {SEMANTIC: TASK}),
        FileDataset("b", "train", scenes, {SEMANTIC: TASK}, {IMAGE: Input(BandsReader((1,)), InputKind(1, (1,)))}),
        FileDataset("b", "train", scenes, {SEMANTIC: TASK}, {IMAGE: Input(BandsReader((2,)), InputKind(1, (2,)))}),
    ]
    with scenes[2].mask.open("ab") as stream:
        stream.write(b"x")
    digests = {first, copy.fingerprint(), *(other.fingerprint() for other in others)}
    assert len(digests) == 2 + len(others)
    scenes[0].image.unlink()
    with pytest.raises(DataError, match=r"0000\.png: no such file; check the path"):
        copy.fingerprint()


def test_fingerprint_of_several_inputs(tmp_path: Path) -> None:
    dataset = both(tmp_path)
    digests = {dataset.fingerprint(), dataset.only(["colour"]).fingerprint(), dataset.only(["depth"]).fingerprint()}
    np.save(dataset.scenes[1].images["depth"], np.zeros((13, 16), np.uint16))
    digests |= {dataset.fingerprint(), dataset.only(["depth"]).fingerprint()}
    assert len(digests) == 5
    assert dataset.only(["colour"]).fingerprint() in digests
