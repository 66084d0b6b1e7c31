"""The two splits: looked at once, refused where they cannot be learned from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fullconv.data.sample import IMAGE, SEMANTIC, InputKind, Sample
from fullconv.errors import DataError, OptionError
from fullconv.labels import VOID, LabelSet
from fullconv.training.splits import class_notes, open_splits, require_healthy
from inmemory import InMemory, one, some
from makers import make_folder, make_nyud, save, scene

LABELS_3 = {SEMANTIC: LabelSet(("ground", "a", "b"))}

KINDS = {
    "photo": InputKind(), "radar": InputKind(2), "depth": InputKind(1, log=True),
    "bands": InputKind(5, (7, 5, 4, 2, 1), (5, 4, 2)),
}  # fmt: skip


def several() -> InMemory:
    """An input of each kind."""
    arrays = {name: np.ones((8, 9, kind.channels), np.uint8) for name, kind in KINDS.items()}
    return InMemory([Sample("s", arrays, {SEMANTIC: np.zeros((8, 9), np.uint8)})], inputs=KINDS)


def test_both_splits_are_looked_at_and_kept_in_memory(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    splits = open_splits(make_folder(tmp_path), lambda *args: seen.append(args))
    assert seen == [("train", i, 4) for i in range(1, 5)] + [("val", i, 2) for i in range(1, 3)]
    assert splits.train.sizes == ((12, 16),) * 4
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    assert len({splits.train.dataset[i].name for i in range(4)}) == 4, "no file is read twice"


def test_copies_of_a_data_set_have_one_fingerprint(tmp_path: Path) -> None:
    prints = {open_splits(make_folder(tmp_path / name)).fingerprint() for name in "ab"}
    assert len(prints) == 1
    (tmp_path / "a" / "train" / "images" / "0000.png").write_bytes(
        (tmp_path / "a" / "train" / "images" / "0001.png").read_bytes() + b"\0"
    )
    assert open_splits(tmp_path / "a").fingerprint() not in prints


def test_the_problems_of_both_splits_are_told_at_once(tmp_path: Path) -> None:
    make_folder(tmp_path, counts={"train": 13, "val": 3})
    (tmp_path / "classes.txt").write_text("ground\na\nb")
    for number in (*range(12), 14):
        split = "train" if number < 13 else "val"
        (tmp_path / split / "images" / f"{number:04}.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        open_splits(tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("(train): 12 problems in 13 samples:")
    assert [f"{number:04}.png: is empty" in line for number, line in enumerate(lines[1:11])] == [True] * 10
    assert lines[11] == "  and 2 more"
    assert lines[12].endswith("(val): 1 problem in 3 samples:")
    assert "0014.png" in lines[13]


def test_data_without_samples_or_with_two_kinds_of_labels() -> None:
    with pytest.raises(DataError, match=r"arrays \(val\): holds no sample; expected at least one"):
        open_splits((some("train", 2), some("val", 0)))
    other = InMemory([one(0)], "val", {SEMANTIC: LabelSet(("0", "1", "two"))})
    with pytest.raises(DataError, match=r"train has the classes .*val .*'two'.*expected the same"):
        open_splits((some("train", 2), other))


def test_splits_of_other_inputs_are_refused() -> None:
    image = {IMAGE: np.ones((8, 9, 2), np.uint8)}
    samples = [Sample("s", image, {SEMANTIC: np.zeros((8, 9), np.uint8)})]
    train = InMemory(samples, inputs={IMAGE: InputKind(2, (1, 2))})
    for other in (InputKind(2, (2, 1)), InputKind(2), InputKind(2, (1, 2), log=True)):
        with pytest.raises(
            DataError, match=r"train has the classes and inputs .*InputKind.*, val .*; expected the same"
        ):
            open_splits((train, InMemory(samples, "val", inputs={IMAGE: other})))


def test_inputs_that_are_wanted() -> None:
    data = several()
    with pytest.raises(OptionError, match=r"unknown input of arrays 'fotos'; did you mean 'photo'\? Choices: bands, "):
        open_splits((data, data), inputs=["fotos"])
    with pytest.raises(OptionError, match="arrays: has the inputs photo, radar, depth, bands, the net takes photo;"):
        open_splits((data, data), inputs=["photo"])
    splits = open_splits((data, data), inputs=["bands", "depth", "radar", "photo"])
    assert set(splits.train.moments) == {"radar", "depth", "bands"}


def recoded(root: Path, change: Callable[[np.ndarray], np.ndarray], splits: str = "*") -> Path:
    """A plain folder of three classes whose masks are changed."""
    make_folder(root)
    (root / "classes.txt").write_text("ground\na\nb\n")
    for path in root.glob(f"{splits}/masks/*.png"):
        save(path, change(scene(int(path.stem))[1]))
    return root


def test_healthy_data_passes_whatever_its_layout(tmp_path: Path) -> None:
    for source in (recoded(tmp_path / "a", lambda m: m), make_nyud(tmp_path / "b"), "wafer"):
        require_healthy(source)


def test_masks_that_would_be_learned_wrong_are_refused(tmp_path: Path) -> None:
    root = recoded(tmp_path / "my data", lambda m: np.where(m == VOID, VOID, m + 1).astype(np.uint8))
    with pytest.raises(DataError) as caught:
        require_healthy(root)
    assert str(caught.value) == (
        f"{root}: training would not start, or learn wrong labels:\n"
        "  masks that count classes from 1: 7 of those looked at (train/0000, train/0001, train/0002, train/0003, "
        f'val/0004, val/0005, test/0006); in a YAML file of this one line: {{path: "{root}", train: train/images, val: '
        "val/images, test: test/images, masks_dir: masks, names: [ground, a, b], label_mapping: {0: 255, 1: 0, 2: 1, "
        f"3: 2}}}}; or counted from 0: fullconv doctor '{root}' --fix FIXED"
    )
    (root / "classes.txt").write_text("ground\na\n")
    for path in root.glob("*/masks/*.png"):
        save(path, np.where(scene(int(path.stem))[1] == 1, 255, 0).astype(np.uint8))
    with pytest.raises(
        DataError, match=r"two-class masks of 0 and 255: \d of those.*label_mapping: {0: 0, 255: 1}}; or"
    ):
        open_splits(root)


def test_faults_that_every_reader_meets_are_left_to_the_check(tmp_path: Path) -> None:
    root = recoded(tmp_path, lambda m: np.where(m == 2, 9, m).astype(np.uint8))
    require_healthy(root)
    with pytest.raises(DataError) as caught:
        open_splits(root)
    lines = str(caught.value).splitlines()
    assert "holds value 9" in lines[1]
    assert lines[-1] == f"see all, and repair what can be, with: fullconv doctor {root} --fix FIXED"


def test_what_is_missing_in_a_split_is_noted() -> None:
    def of(split: str, *classes: int) -> InMemory:
        mask = np.resize(np.array(classes, np.uint8), (20, 30))
        return InMemory([Sample("s", {IMAGE: np.zeros((20, 30, 3), np.uint8)}, {SEMANTIC: mask})], split, LABELS_3)

    assert class_notes(open_splits((of("train", 0, 1, 2), of("val", 0, 1, 2)))) == []
    assert class_notes(open_splits((of("train", 0, 1), of("val", 2, 1, VOID)))) == [
        "train has no pixel of b: what is not in train is not learned",
        "val has no pixel of ground: what is not in val is not scored",
    ]
    both = InMemory(
        [Sample("s", {IMAGE: np.zeros((2, 3, 3), np.uint8)}, {t: np.zeros((2, 3), np.uint8) for t in ("x", "y")})],
        "train", {"x": LabelSet.numbered(1), "y": LABELS_3[SEMANTIC]},
    )  # fmt: skip
    assert class_notes(open_splits((both, both)))[0] == (
        "train has no pixel of a, b (y): what is not in train is not learned"
    )


def test_other_splits_can_be_named(tmp_path: Path) -> None:
    make_folder(tmp_path)
    splits = open_splits(tmp_path, names=("val", "test"))
    assert [each.dataset.split for each in (splits.train, splits.val)] == ["val", "test"]
    assert splits.fingerprint() == (
        f"{splits.train.dataset.fingerprint()[:16]}-{splits.val.dataset.fingerprint()[:16]}"
    )
    with pytest.raises(DataError, match="trial"):
        open_splits(tmp_path, names=("trial", "val"))


def test_a_third_of_the_free_memory_is_taken_val_included(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scene of 12 x 16 and its mask are 768 bytes."""
    data = (some("train", 4), some("val", 4))
    for free, kept in ((3 * 768 * 8, (4, 4)), (3 * 768 * 6, (4, 2)), (3 * 768 * 3 - 3, (2, 0)), (0, (0, 0))):
        monkeypatch.setattr("fullconv.training.splits.free_memory", lambda free=free: free)
        splits = open_splits(data)
        assert (splits.train.cached_bytes // 768, splits.val.cached_bytes // 768) == kept
