"""YOLO's lines: polygons, boxes, and where they and their images lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fullconv.data.annotations import import_annotations
from fullconv.data.mask import MaskReader
from makers import save
from refusals import refusal

TOP = "0 0 0 1 0 1 0.25 0 0.25\n"
"""The first of four rows."""


def image(path: Path) -> None:
    save(path, np.zeros((4, 6, 3), np.uint8))


def yolo(root: Path, lines: str, yaml: str = "names: [crack, dent]") -> Path:
    """A folder of one image, and the path of its label file."""
    image(root / "images/a.png")
    (root / "data.yaml").write_text(yaml)
    path = root / "labels/a.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text(lines)
    return path


def mask(path: Path) -> list[list[int]]:
    return MaskReader(255).read(path).tolist()


@pytest.mark.parametrize("names", ["names: [crack, dent]", "names: {0: crack, 1: dent}\npath: ../datasets/x"])
def test_polygons(tmp_path: Path, names: str) -> None:
    yolo(tmp_path / "in", f"{TOP}\n1 0.5 0 1.5 0 1.5 2 0.5 2\n", names)
    done = import_annotations(tmp_path / "in", tmp_path / "out")
    assert done.labels.names == ("background", "crack", "dent")
    assert mask(tmp_path / "out/masks/a.png") == [[1, 1, 1, 2, 2, 2]] + [[0, 0, 0, 2, 2, 2]] * 3


def test_boxes(tmp_path: Path) -> None:
    path = yolo(tmp_path / "in", f"{TOP}1 0.25 0.75 0.5 0.5\n")
    assert refusal(import_annotations, tmp_path / "in", tmp_path / "out") == (
        f"{path}: line 2: holds a box, and boxes are no masks; export polygons, or fill boxes with --boxes"
    )
    import_annotations(tmp_path / "in", tmp_path / "out", boxes=True)
    assert mask(tmp_path / "out/masks/a.png") == [[1] * 6, [0] * 6, [2, 2, 2, 0, 0, 0], [2, 2, 2, 0, 0, 0]]


def test_splits_of_the_yaml(tmp_path: Path) -> None:
    """Ultralytics' own layout, Roboflow's (`../valid/images`), and folders whose names say nothing."""
    for folder in ("images/a", "images/b", "valid/images"):
        image(tmp_path / "in" / folder / "0.png")
        labels = tmp_path / "in" / folder.replace("images", "labels") / "0.txt"
        labels.parent.mkdir(parents=True)
        labels.write_text(TOP)
    (tmp_path / "in/data.yaml").write_text(
        "path: /somewhere/else\ntrain: images/a\nval: ../valid/images\ntest: /x/images/b\nnc: 1\nnames: [crack]\n"
    )
    done = import_annotations(tmp_path / "in" / "data.yaml", tmp_path / "out")
    assert done.images == 3
    for split in ("train", "val", "test"):
        assert mask(tmp_path / "out" / split / "masks/0.png")[0] == [1] * 6


def several(root: Path, yaml: str, *names: str) -> Path:
    """Images of one class, whose labels lie beside them, and a data.yaml."""
    for name in names:
        image(root / name)
        (root / name).with_suffix(".txt").write_text(TOP)
    (root / "data.yaml").write_text(f"{yaml}\nnames: [crack]\n")
    return root


def masks(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png") if path.parent.name == "masks")


def test_lists_of_images(tmp_path: Path) -> None:
    """Lists as tools write them: of names from the list on, from the root of another machine, and with Windows' \\."""
    root = several(
        tmp_path / "in", "path: ../datasets/x\ntrain: lists/train.txt\nval: [val.txt, more.txt]",
        "images/0.png", "images/1.png", "images/2.png", "images/3.png",
    )  # fmt: skip
    (root / "lists").mkdir()
    (root / "lists/train.txt").write_text("../images/0.png\n\n/data/x/images/1.png\n../images/gone.png\n")
    (root / "val.txt").write_text("./images/2.png\n./images/2.png\n")
    (root / "more.txt").write_text("C:\\x\\images\\3.png\n")
    done = import_annotations(root, tmp_path / "out")
    assert masks(tmp_path / "out") == [
        "train/masks/0.png", "train/masks/1.png", "val/masks/2.png", "val/masks/3.png",
    ]  # fmt: skip
    assert f"{root / 'data.yaml'}: train: 1 images have no file: ../images/gone.png" in done.notes


def test_lists_of_folders(tmp_path: Path) -> None:
    root = several(
        tmp_path / "in",
        "path: set\ntrain: [a, 'b\\c']\nval: ['/x/set/d']",
        "set/a/0.png",
        "set/b/c/1.png",
        "set/d/2.png",
    )
    import_annotations(root, tmp_path / "out")
    assert masks(tmp_path / "out") == ["train/masks/0.png", "train/masks/1.png", "val/masks/2.png"]


def test_the_closer_folder_says_the_split(tmp_path: Path) -> None:
    """`.` and `images` hold the images of val too; a list names images more closely than any folder."""
    root = several(
        tmp_path / "in", "train: .\nval: images/b\ntest: test.txt", "0.png", "images/b/1.png", "images/b/2.png"
    )
    (root / "test.txt").write_text("images/b/2.png")
    done = import_annotations(root, tmp_path / "out")
    assert masks(tmp_path / "out") == ["test/masks/2.png", "train/masks/0.png", "val/masks/1.png"]
    assert "2 images are in several splits, and taken in one: 1.png, 2.png" in done.notes


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("train: nowhere", "train is 'nowhere', expected a folder or a .txt list of images below "),
        ("train: images\nval: images/nowhere", "val is 'images/nowhere', expected a folder or a .txt list"),
        ("train: [images, nowhere]", "train[1] is 'nowhere', expected a folder or a .txt list"),
        ("train: nowhere.txt", "train is 'nowhere.txt', expected a folder or a .txt list"),
        ("train: foreign.txt", "train is 'foreign.txt', expected a folder or a .txt list"),
        (f"train: {'x' * 300}", "xxx..., expected a folder or a .txt list"),
        (f"train: {'x' * 300}.txt", "xxx..., expected a folder or a .txt list"),
        ("train: 7", "train is 7, expected text"),
        ("train: {a: b}", "train is {'a': 'b'}, expected text"),
        ("train: [7]", "train[0] is 7, expected text"),
        ("train: images\npath: 7", "path is 7, expected text"),
        ("train: binary.txt", "binary.txt: is not UTF-8 text"),
    ],
)
def test_splits_that_lead_nowhere(tmp_path: Path, yaml: str, message: str) -> None:
    root = several(tmp_path / "in", yaml, "images/0.png")
    (root / "foreign.txt").write_text("images/1.png\n../../etc/passwd\n")
    (root / "binary.txt").write_bytes(b"\xff")
    found = refusal(import_annotations, root, tmp_path / "out")
    assert message in found
    assert found.startswith(str(root))


def test_a_test_split_may_be_kept_back(tmp_path: Path) -> None:
    root = several(tmp_path / "in", "train: ../train/images\ntest: ../test/images", "train/images/0.png")
    import_annotations(root, tmp_path / "out")
    assert masks(tmp_path / "out") == ["train/masks/0.png"]


def test_no_list_is_read_outside_of_the_export(tmp_path: Path) -> None:
    root = several(tmp_path / "in", "train: ../secret.txt", "images/0.png")
    (tmp_path / "secret.txt").write_text("images/0.png")
    assert "train is '../secret.txt', expected" in refusal(import_annotations, root, tmp_path / "out")


def test_darknet(tmp_path: Path) -> None:
    image(tmp_path / "in/obj_train_data/0.png")
    image(tmp_path / "in/obj_train_data/1.png")
    (tmp_path / "in/obj_train_data/0.txt").write_text(TOP)
    (tmp_path / "in/obj_train_data/1.txt").write_text("")
    (tmp_path / "in/obj.names").write_text("crack\n\n")
    done = import_annotations(tmp_path / "in", tmp_path / "out")
    assert mask(tmp_path / "out/train/masks/0.png")[0] == [1] * 6
    assert "1 images without annotations are left out; --empty takes them as background" in done.notes


def test_images_elsewhere(tmp_path: Path) -> None:
    yolo(tmp_path / "in", TOP)
    (tmp_path / "in/images").rename(tmp_path / "pictures")
    done = import_annotations(tmp_path / "in", tmp_path / "out", images=tmp_path / "pictures")
    assert done.images == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x 0 0 1 1 1 0", "'x 0 0 1 1 1 0' is not numbers; export it again"),
        ("2 0 0 1 1 1 0", "class 2 has no name; there are names for 0..1"),
        ("-1 0 0 1 1 1 0", "class -1 has no name"),
        ("0.5 0 0 1 1 1 0", "class 0.5 has no name"),
        ("nan 0 0 1 1 1 0", "class nan has no name"),
        ("0 0 0 1 1 1 nan", "coordinates are not of 0..1, image widths and heights; export it again"),
        ("0 0 0 100 100 1 0", "coordinates are not of 0..1"),
        ("0 0 0 1 1 1", "holds 6 numbers, expected a class and x y of three points or more"),
        ("0", "holds 1 numbers, expected"),
        ("0 0 0 1 1 1 0 1", "holds 8 numbers, expected"),
    ],
)
def test_lines_that_are_refused(tmp_path: Path, line: str, message: str) -> None:
    path = yolo(tmp_path / "in", f"\n{line}\n")
    assert refusal(import_annotations, tmp_path / "in", tmp_path / "out").startswith(f"{path}: line 2: {message}")


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("names: &a [*a]", "data.yaml: line 1 has the alias *a, which is not read; write the value itself"),
        ("names: [!!bool x]", "data.yaml: is not valid YAML (KeyError: 'x'); correct it there"),
        ("names: [", "data.yaml: is not valid YAML ("),
        ("names: 3", "data.yaml: names is 3, expected a list"),
        ("names: [1]", "data.yaml: names[0] is 1, expected text"),
        ("names: {1: a}", "data.yaml: names is {1: 'a'}, expected the numbers 0, 1, 2 ... once each"),
        ("# names:\n- a", "data.yaml is ['a'], expected an object"),
        ("names: [a]\nkpt_shape: [17, 3]", "kpt_shape is [17, 3], expected no key points: they have no area"),
    ],
)
def test_yaml_that_is_refused(tmp_path: Path, yaml: str, message: str) -> None:
    yolo(tmp_path / "in", TOP, yaml)
    assert message in refusal(import_annotations, tmp_path / "in", tmp_path / "out")


def test_a_real_piece(shared_data: Path, tmp_path: Path) -> None:
    """Boxes of classes 2 and 4 in an image of 10 x 15: by hand."""
    source = shared_data / "annotations/datumaro/yolo_dataset/strict"
    import_annotations(source, tmp_path / "out", boxes=True)
    found = np.array(mask(tmp_path / "out/train/masks/1.png"))
    expected = np.zeros((10, 15), int)
    expected[2:4, 0:4] = 3
    expected[3:6, 3:5] = 5
    assert found.shape == expected.shape
    # The box of class 2 covers x 0.0 to 4.0, y 2 to 4 but for the rounding of the six digits in the file.
    assert (found != expected).sum() <= 2
