"""What is common to all tools: classes, names, what is left out, and that a failed import leaves nothing."""

from __future__ import annotations

import base64
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fullconv.data import open_dataset
from fullconv.data.annotations import import_annotations, output
from fullconv.data.annotations.formats import _look
from fullconv.data.image import read_image
from fullconv.data.mask import MaskReader
from fullconv.data.sample import IMAGE, SEMANTIC
from fullconv.errors import OptionError
from makers import save
from refusals import refusal

ROWS = {"z": 0, "a": 1, "background": 2}
"""The row of a 4 x 5 image that each label covers."""

VOID_BACK = {"background": "void"}


def row(label: str, number: int) -> dict[str, Any]:
    return {"label": label, "shape_type": "rectangle", "points": [[0, number], [5, number + 1]]}


def annotate(path: Path, *labels: str, suffix: str = ".png", **more: Any) -> None:
    """An image of 4 x 5 and its LabelMe file with a row for each label."""
    save(path.with_suffix(suffix), np.full((4, 5, 3), len(path.name), np.uint8))
    shapes = [row(label, ROWS.get(label, 3)) for label in labels]
    path.with_suffix(".json").write_text(json.dumps({"shapes": shapes, "imagePath": f"{path.name}{suffix}", **more}))


def rows(path: Path) -> list[int]:
    found = MaskReader(255).read(path)
    assert (found == found[:, :1]).all()
    return found[:, 0].tolist()


# Classes


@pytest.mark.parametrize(
    ("labels", "options", "names", "values"),
    [
        (["z", "a"], {}, ["background", "a", "z"], [2, 1, 0, 0]),
        (["z", "a"], {"background": "void"}, ["a", "z"], [1, 0, 255, 255]),
        (["z", "a"], {"classes": ["z", "a"]}, ["background", "z", "a"], [1, 2, 0, 0]),
        (["z", "a"], {"classes": ["z", "a", "later"]}, ["background", "z", "a", "later"], [1, 2, 0, 0]),
        (["z", "a"], {"classes": [" a ", "background", "z", "a", ""]}, ["a", "background", "z"], [2, 0, 1, 1]),
        (["z", "a"], {"classes": ["a", "_background_", "z"], **VOID_BACK}, ["a", "background", "z"], [2, 0, 255, 255]),
        (["z", "a"], {"classes": ["__ignore__", "a"], "others": "void"}, ["background", "a"], [255, 1, 0, 0]),
        (["z", "a"], {"classes": ["a"], "others": "background"}, ["background", "a"], [0, 1, 0, 0]),
        (["z", "a"], {"classes": ["a"], "others": "background", **VOID_BACK}, ["background", "a"], [0, 1, 255, 255]),
        (["z", "background"], {}, ["background", "z"], [1, 0, 0, 0]),
        (["z", "background"], {"background": "void"}, ["background", "z"], [1, 255, 0, 255]),
        (["z", "ignored"], {}, ["background", "z"], [1, 0, 0, 255]),
        (["z", "Void"], {"background": "void"}, ["z"], [0, 255, 255, 255]),
    ],
)  # fmt: skip
def test_classes(tmp_path: Path, labels: list[str], options: Any, names: list[str], values: list[int]) -> None:
    annotate(tmp_path / "in/1", *labels)
    done = import_annotations(tmp_path / "in", tmp_path / "out", **options)
    assert list(done.labels.names) == names
    assert (tmp_path / "out/classes.txt").read_text().split("\n") == [*names, ""]
    assert rows(tmp_path / "out/masks/1.png") == values
    counted = [5 * values.count(number) for number in range(len(names))]
    assert done.pixels.tolist() == counted
    assert done.occurrences.tolist() == [int(count > 0) for count in counted]
    assert (done.void, done.void_images) == (5 * values.count(255), int(255 in values))


def test_labels_outside_of_the_classes(tmp_path: Path) -> None:
    annotate(tmp_path / "in/1", "z", "a", "q")
    annotate(tmp_path / "in/2", "q")
    run = partial(import_annotations, tmp_path / "in", tmp_path / "out", classes=["a"])
    assert refusal(run) == (
        "2 labels are outside of the classes (a): 'q' (2), 'z' (1); "
        "add them with --classes, or choose --others background or --others void"
    )
    done = run(others="void")
    assert done.notes == ("read as labelme", "labels outside of the classes become void: 'q' (2), 'z' (1)")


def test_too_many_classes_and_none(tmp_path: Path) -> None:
    annotate(tmp_path / "in/1", *(f"label {n}" for n in range(300)))
    message = refusal(import_annotations, tmp_path / "in", tmp_path / "out")
    assert message.startswith("classes: 301 classes; expected 1 to 255 ")
    assert message.endswith("; choose them with --classes")
    with pytest.raises(OptionError, match=r"^classes: 0 classes; expected 1 to 255"):
        import_annotations(tmp_path / "in", tmp_path / "out", classes=[], others="void", background="void")


def test_names_that_are_no_line(tmp_path: Path) -> None:
    annotate(tmp_path / "in/1", "a")
    with pytest.raises(OptionError, match=r"^class name 'a.{1,2}nb' is not one line of plain text; correct it$"):
        import_annotations(tmp_path / "in", tmp_path / "out", classes=["a\nb"])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"order": "size"}, "unknown order 'size'. Choices: area, tool"),
        ({"background": "black"}, "unknown choice for the background 'black'; did you mean 'background'?"),
        ({"others": "errors"}, "unknown choice for other labels 'errors'; did you mean 'error'?"),
        ({"format": "voc"}, "unknown format 'voc'"),
    ],
)
def test_unknown_choices(tmp_path: Path, option: dict[str, str], message: str) -> None:
    annotate(tmp_path / "in/1", "a")
    with pytest.raises(OptionError) as caught:
        import_annotations(tmp_path / "in", tmp_path / "out", **option)  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)


# Files


def test_the_folder_opens_as_a_data_set(tmp_path: Path) -> None:
    for number in range(4):
        annotate(tmp_path / "in" / str(number), "a", suffix=".jpg")
    done = import_annotations(tmp_path / "in", tmp_path / "new/out")
    train, val = (open_dataset(done.path, split) for split in ("train", "val"))
    assert len(train) + len(val) == done.images == 4
    assert train.labels[SEMANTIC].names == ("background", "a")
    sample = val[0]
    assert sample.inputs[IMAGE].shape == (4, 5, 3)
    assert sample.masks[SEMANTIC][:, 0].tolist() == [0, 1, 0, 0]
    copied = (tmp_path / "new/out/images/0.jpg").read_bytes()
    assert copied == (tmp_path / "in/0.jpg").read_bytes()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["out"]


def test_splits_are_folders(tmp_path: Path) -> None:
    annotate(tmp_path / "in/Train/0", "a")
    annotate(tmp_path / "in/valid/0", "a")
    annotate(tmp_path / "in/0", "a")
    annotate(tmp_path / "in/more/1", "a")
    done = import_annotations(tmp_path / "in", tmp_path / "out")
    names = [path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("images/**/*.png")]
    assert sorted(names) == ["train/images/0.png", "train/images/1.png", "train/images/Train/0.png", "val/images/0.png"]
    assert len(open_dataset(done.path, "train")) == 3


def test_images_of_one_name_keep_their_folders(tmp_path: Path) -> None:
    for name in ("x/0", "y/0", "y/1"):
        annotate(tmp_path / "in" / name, "a")
    import_annotations(tmp_path / "in", tmp_path / "out")
    names = [path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("masks/**/*.png")]
    assert sorted(names) == ["masks/1.png", "masks/x/0.png", "masks/y/0.png"]


def test_masks_of_one_name_are_refused(tmp_path: Path) -> None:
    annotate(tmp_path / "in/0", "a")
    annotate(tmp_path / "in/1", "a", imagePath="0.jpg")
    save(tmp_path / "in/0.jpg", np.zeros((4, 5, 3), np.uint8))
    assert refusal(import_annotations, tmp_path / "in", tmp_path / "out") == (
        f"{tmp_path / 'in/0.png'} and {tmp_path / 'in/0.jpg'} would have masks of one name; rename one of the images"
    )


def test_an_image_turned_by_its_exif_is_copied_as_it_is(tmp_path: Path) -> None:
    annotate(tmp_path / "in/0", "a", suffix=".jpg", imageHeight=4, imageWidth=5)
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (4, 5)).save(tmp_path / "in/0.jpg", exif=exif)
    done = import_annotations(tmp_path / "in", tmp_path / "out")
    assert rows(tmp_path / "out/masks/0.png") == [0, 1, 0, 0]
    copied = done.path / "images/0.jpg"
    assert copied.read_bytes() == (tmp_path / "in/0.jpg").read_bytes()
    assert read_image(copied).shape == (4, 5, 3)


def test_thin_shapes_are_noted(tmp_path: Path) -> None:
    annotate(tmp_path / "in/0", "a")
    path = tmp_path / "in/0.json"
    whole = json.loads(path.read_text())
    thin = [[[0, 0.6], [5, 0.6], [5, 1.4]], [[9, 9], [10, 9], [10, 10]], [[1, 1], [2, 2]], []]
    whole["shapes"] += [{"label": "a", "shape_type": "polygon", "points": points} for points in thin]
    path.write_text(json.dumps(whole))
    done = import_annotations(tmp_path / "in", tmp_path / "out")
    assert done.notes[-1] == "4 shapes cover no pixel: too thin, outside of their images, or degenerate"
    assert done.shapes == 5


def test_nothing_to_import(tmp_path: Path) -> None:
    annotate(tmp_path / "in/0")
    assert refusal(import_annotations, tmp_path / "in", tmp_path / "out") == (
        "no image has annotations: 1 images without annotations are left out; --empty takes them as background"
    )
    (tmp_path / "in/0.png").unlink()
    assert refusal(import_annotations, tmp_path / "in", tmp_path / "out") == (
        f"1 images have no file below {tmp_path / 'in'}: 0.png; name the folder that holds them with --images"
    )
    path = tmp_path / "empty.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    assert refusal(import_annotations, path, tmp_path / "out") == (
        f"{tmp_path}: the export holds no images; export it again"
    )


def test_missing_images_are_counted_and_ten_named(tmp_path: Path) -> None:
    for number in range(12):
        annotate(tmp_path / "in" / f"{number:02}", "a")
        if number:
            (tmp_path / "in" / f"{number:02}.png").unlink()
    done = import_annotations(tmp_path / "in", tmp_path / "out")
    named = ", ".join(f"{number:02}.png" for number in range(1, 11))
    assert done.notes[1] == f"11 images have no file below {tmp_path / 'in'}: {named}, and 1 more"


def test_out_must_be_new_or_empty(tmp_path: Path) -> None:
    annotate(tmp_path / "in/0", "a")
    (tmp_path / "out").mkdir()
    import_annotations(tmp_path / "in", tmp_path / "out")
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "out", tmp_path / "file"):
        with pytest.raises(OptionError) as caught:
            import_annotations(tmp_path / "in", out)
        assert str(caught.value) == f"{out} exists and is not an empty folder; name a new one"


def test_a_failed_import_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        annotate(tmp_path / "in" / str(number), "a")
    (tmp_path / "in/2.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert str(tmp_path / "in/2.png") in refusal(import_annotations, tmp_path / "in", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output.shutil, "copyfile", full)
    message = refusal(import_annotations, tmp_path / "in", tmp_path / "out")
    assert message.startswith(f"{tmp_path / 'out'}: cannot be written (OSError: [Errno 28] No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    monkeypatch.setattr(output.shutil, "copyfile", stop)
    with pytest.raises(KeyboardInterrupt):
        import_annotations(tmp_path / "in", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def stop(*args: object) -> None:
    raise KeyboardInterrupt


def test_progress(tmp_path: Path) -> None:
    for number in range(3):
        annotate(tmp_path / "in" / str(number), "a")
    told: list[tuple[int, int]] = []
    import_annotations(tmp_path / "in", tmp_path / "out", progress=lambda done, total: told.append((done, total)))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


# Recognition


def test_what_is_no_export(tmp_path: Path) -> None:
    message = refusal(import_annotations, tmp_path / "no", tmp_path / "out")
    assert message == f"{tmp_path / 'no'}: no such file or folder; check the path"
    (tmp_path / "a.zip").write_bytes(b"PK")
    message = refusal(import_annotations, tmp_path / "a.zip", tmp_path / "out")
    assert message == f"{tmp_path / 'a.zip'}: is an archive; unpack it and name the folder"
    (tmp_path / "a.json").write_text("{}")
    choices = "datumaro, cvat-masks, supervisely, cvat, coco, labelstudio, labelme, yolo"
    assert refusal(import_annotations, tmp_path, tmp_path / "out") == (
        f"{tmp_path}: holds no export of a known tool; expected one of {choices} (--format)"
    )
    assert refusal(partial(import_annotations, tmp_path, tmp_path / "out", format="coco")) == (
        f"{tmp_path}: holds no export of coco; expected one of {choices} (--format)"
    )
    forced = refusal(partial(import_annotations, tmp_path / "a.json", tmp_path / "out", format="coco"))
    assert forced == f"{tmp_path / 'a.json'} has no 'categories'; correct it or export it again"


def test_what_cannot_be_read(tmp_path: Path) -> None:
    message = refusal(_look, tmp_path / "gone.json")
    assert message == f"{tmp_path / 'gone.json'}: cannot be read (No such file or directory); check the path"


def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    annotate(tmp_path / "in/0", "a")
    annotate(tmp_path / "in/.cache/1", "b")
    done = import_annotations(tmp_path / "in", tmp_path / "out")
    assert done.labels.names == ("background", "a")


@pytest.mark.parametrize("name", ["../../escape", "/tmp/escape", "..\\..\\escape"])
def test_no_name_writes_outside(tmp_path: Path, name: str) -> None:
    """An embedded image takes the name of its own file, whatever path it claims."""
    annotate(tmp_path / "deep/in/0", "a")
    data = base64.b64encode((tmp_path / "deep/in/0.png").read_bytes()).decode()
    (tmp_path / "deep/in/0.png").unlink()
    annotate(tmp_path / "deep/in/1", "a", imagePath=f"{name}.png", imageData=data)
    import_annotations(tmp_path / "deep/in", tmp_path / "deep/out")
    assert sorted(path.name for path in tmp_path.rglob("*.png")) == ["1.png", "1.png", "1.png"]
