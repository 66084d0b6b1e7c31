"""Findings: what they say, and that what they propose mends what they name."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

from broken_data import make_broken, make_clean, original, scene
from fullconv.data import open_dataset
from fullconv.data.doctor import KINDS, Diagnosis, Finding, examine, fix_command
from fullconv.data.doctor.checks import ALMOST_EMPTY
from fullconv.data.doctor.findings import LEAKS, SEVERITIES, SILENT, by_severity
from fullconv.data.sample import SEMANTIC
from fullconv.labels import VOID, LabelSet
from makers import make_folder, make_voc, save

Array = NDArray[np.uint8]
COUNTS = {"train": 5, "val": 3}
OWN = np.array([(60, 16, 152), (132, 41, 246), (110, 193, 228), (226, 169, 41)], np.uint8)


def make_data(
    root: Path, change: Callable[[Array, str, int], Array], names: str = "[ground, water, road, house]", extra: str = ""
) -> Path:
    """A data set of a YAML file whose masks are changed on their way to the files; PNG, unless they are pictures."""
    seed = 0
    for split, count in COUNTS.items():
        for number in range(count):
            image, mask = scene(seed)
            save(root / "images" / split / f"{number}.png", image)
            save(root / "masks" / split / f"{number}.png", change(mask, split, number))
            seed += 1
    lines = ["train: images/train", "val: images/val", f"names: {names}", extra]
    (root / "data.yaml").write_text("\n".join(lines), "utf-8")
    return root / "data.yaml"


def only(found: Diagnosis, kind: str) -> Finding:
    assert [f.kind for f in found.errors] == [kind]
    return found.errors[0]


def proposed(finding: Finding, key: str) -> str:
    """The YAML that a remedy proposes."""
    match = re.search(rf"{key}: {{.*?}}(?=;| and | or |$)", finding.remedy)
    assert match is not None, finding.remedy
    return match[0]


def colours_line(finding: Finding) -> str:
    """The colours that a remedy proposes for a YAML file."""
    match = re.fullmatch(r"in its YAML file: (.*) \(each class with its right name\); or fullconv .*", finding.remedy)
    assert match is not None, finding.remedy
    return match[1]


def reopened(path: Path, text: str) -> list[Array]:
    """All masks as they are read once a line was added to the YAML file."""
    path.write_text(path.read_text("utf-8") + "\n" + text, "utf-8")
    assert [f.kind for f in examine(path).errors] == []
    datasets = [open_dataset(path, split) for split in COUNTS]
    return [dataset[i].masks[SEMANTIC] for dataset in datasets for i in range(len(dataset))]


def same(found: list[Array], change: Callable[[Array], Array] = lambda m: m) -> None:
    for index, mask in enumerate(found):
        np.testing.assert_array_equal(mask, change(scene(index)[1]))


def test_0_and_255_is_mended_by_the_proposed_yaml(tmp_path: Path) -> None:
    path = make_data(tmp_path, lambda m, *_: np.where(m == 1, 255, 0).astype(np.uint8), "[a, b]")
    finding = only(examine(path), "0 and 255")
    assert finding.count == 8
    same(reopened(path, proposed(finding, "label_mapping")), lambda m: (m == 1).astype(np.uint8))


def test_soft_edges_are_mended_by_the_proposed_yaml(tmp_path: Path) -> None:
    def soft(mask: Array) -> Array:
        large = Image.fromarray(np.where(mask == 1, 255, 0).astype(np.uint8)).resize(
            (150, 110), Image.Resampling.BILINEAR
        )
        return np.asarray(large.resize(mask.shape[::-1], Image.Resampling.BILINEAR))

    path = make_data(tmp_path, lambda m, *_: soft(m), "[a, b]")
    hard = np.where(scene(1)[1] == 1, 255, 0).astype(np.uint8)
    save(tmp_path / "masks/train/1.png", hard)
    finding = only(examine(path), "soft edges")
    assert finding.count == 8, "with the one that has none: one line of YAML mends all"
    assert re.search(r"masks with soft edges \([\d.]+ % of their pixels are of no class\)", finding.title)
    found = reopened(path, proposed(finding, "label_mapping"))
    np.testing.assert_array_equal(found.pop(1), hard // 255)
    expected = [(soft(scene(index)[1]) > 127).astype(np.uint8) for index in (0, 2, 3, 4, 5, 6, 7)]
    np.testing.assert_array_equal(found, expected)


def test_classes_from_1_are_mended_by_the_proposed_yaml(tmp_path: Path) -> None:
    path = make_data(tmp_path, lambda m, *_: np.where(m == VOID, VOID, m + 1).astype(np.uint8))
    finding = only(examine(path), "classes from 1")
    assert "holds 1, 2, 3, 4, 255; classes are 0..3 and 255 = void" in finding.details[0]
    same(reopened(path, proposed(finding, "label_mapping")))


def test_no_mapping_is_proposed_that_would_shift_the_other_split(tmp_path: Path) -> None:
    path = make_data(tmp_path, lambda m, s, _: np.where(m == VOID, m, m + (s == "val")).astype(np.uint8))
    finding = only(examine(path), "classes from 1")
    assert finding.names == ("val/0", "val/1", "val/2")
    assert finding.remedy == f"counted from 0: {fix_command(str(path))}"


def test_values_of_no_class_are_mended_by_the_proposed_yaml(tmp_path: Path) -> None:
    def strange(mask: Array, split: str, number: int) -> Array:
        mask = mask.copy()
        mask[20:24, 30:40] = 9 if number else 10
        mask[30:34, 30:40] = 77
        mask[60:64, 30:40] = 11
        return mask

    path = make_data(tmp_path, strange)
    finding = only(examine(path), "value of no class")
    text = proposed(finding, "label_mapping")
    assert text == "label_mapping: {9-11: 255, 77: 255}"
    found = reopened(path, text)
    for index, mask in enumerate(found):
        expected = scene(index)[1]
        for top in (20, 30, 60):
            expected[top : top + 4, 30:40] = VOID
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    "names", ["[ground, water, road, house]", '["no", "a: {b}", "#c", "d\\ne"]', '["1", "on", "null", "~"]']
)
def test_colours_are_mended_by_the_proposed_yaml(tmp_path: Path, names: str) -> None:
    table = np.zeros((256, 3), np.uint8)
    table[:4] = LabelSet.numbered(4).palette()[:4]
    table[VOID] = LabelSet.numbered(4).palette()[VOID]
    path = make_data(tmp_path, lambda m, *_: table[m], names)
    finding = only(examine(path), "colours")
    line = colours_line(finding)
    # Void is a line of one pixel here: it is no area, so that it has to be declared where it is not known.
    same(reopened(path, line[:-1] + ", void: [224, 224, 192]}" if "void" not in line else line))


def test_a_class_without_a_pixel_has_a_colour_proposed_too(tmp_path: Path) -> None:
    table = LabelSet.numbered(4).palette()
    path = make_data(tmp_path, lambda m, *_: table[np.where(m == 3, 0, m)])
    line = colours_line(only(examine(path), "colours"))
    given = yaml.safe_load(line)["colors"]
    assert given == dict(
        zip((*("ground", "water", "road", "house"), "void"), table[[0, 1, 2, 3, VOID]].tolist(), strict=True)
    )
    same(reopened(path, line), lambda m: np.where(m == 3, 0, m))


def test_several_colours_of_void_are_one_key(tmp_path: Path) -> None:
    table = LabelSet.numbered(4).palette()

    def two_voids(mask: Array, *_: object) -> Array:
        rgb = table[mask]
        rgb[:4] = table[VOID]
        rgb[-4:] = (9, 200, 100)
        return rgb

    path = make_data(tmp_path, two_voids)
    line = colours_line(only(examine(path), "colours"))
    assert sorted(yaml.safe_load(line)["colors"]["void"]) == [[9, 200, 100], [224, 224, 192]]
    for index, mask in enumerate(reopened(path, line)):
        assert (mask[[0, 3, -1, -4]] == VOID).all()
        np.testing.assert_array_equal(mask[4:-4], scene(index)[1][4:-4])


def test_an_area_of_a_colour_of_no_class_is_void_and_no_edge(tmp_path: Path) -> None:
    table = np.zeros((256, 3), np.uint8)
    table[:4] = OWN

    def strange(mask: Array, split: str, number: int) -> Array:
        rgb = table[mask]
        if number == 1:
            rgb[30:40, 30:50] = (0, 255, 0)
        return rgb

    colours = ", ".join(f"{n}: {OWN[k].tolist()}" for k, n in enumerate(("ground", "water", "road", "house")))
    given = f"colors: {{{colours}, void: [0, 0, 0]}}"
    path = make_data(tmp_path, strange, extra=given)
    finding = only(examine(path), "value of no class")
    assert finding.names == ("train/1", "val/1")
    assert finding.details[0] == "train/1: has areas of [0, 255, 0], of no class"
    assert "make what has none void, in its YAML file: void: [[0, 255, 0]] in its colors; or" in finding.remedy
    path.write_text(path.read_text().replace("void: [0, 0, 0]", "void: [[0, 0, 0], [0, 255, 0]]"))
    assert examine(path).errors == []


FOLDER_CASES: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array], str]] = {
    "0 and 255": (lambda m: np.where(m == 1, 255, 0).astype(np.uint8), lambda m: (m == 1).astype(np.uint8), ""),
    "classes from 1": (
        lambda m: np.where(m == VOID, VOID, m + 1).astype(np.uint8), lambda m: m, "ground\nno\n🌊: sea\nit's\n"
    ),
    "value of no class": (
        lambda m: np.where(m == 3, 9, m).astype(np.uint8),
        lambda m: np.where(m == 3, VOID, m).astype(np.uint8),
        "a\nb\nc\n",
    ),
    "colours": (
        lambda m: LabelSet.numbered(4).palette()[np.where(m == VOID, 0, m)],
        lambda m: np.where(m == VOID, 0, m).astype(np.uint8),
        "a\nb\nc\nd\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", ["{split}/{kind}", "{kind}/{split}"])
@pytest.mark.parametrize("kind", FOLDER_CASES)
def test_a_plain_folder_is_mended_by_the_proposed_line_alone(tmp_path: Path, kind: str, layout: str) -> None:
    broken, expected, names = FOLDER_CASES[kind]
    root = tmp_path / "it's {a}: #1 🌊"
    seed = 0
    for split, count in COUNTS.items():
        for number in range(count):
            image, mask = scene(seed)
            save(root / layout.format(split=split, kind="images") / f"{number}.png", image)
            save(root / layout.format(split=split, kind="masks") / f"{number}.png", broken(mask))
            seed += 1
    if names:
        (root / "classes.txt").write_text(names, "utf-8")
    finding = only(examine(root), kind)
    match = re.search(r"in a YAML file of this one line: ({.*})(?=; or| \(each)", finding.remedy)
    assert match is not None, finding.remedy
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "elsewhere" / "data.yaml"
    path.write_text(match[1], "utf-8")
    assert examine(path).errors == []
    datasets = [open_dataset(path, split) for split in COUNTS]
    same([dataset[i].masks[SEMANTIC] for dataset in datasets for i in range(len(dataset))], expected)
    assert datasets[0].labels[SEMANTIC].names == tuple(names.split("\n")[:-1] or ["background", "foreground"])


def test_soft_edges_in_a_plain_folder_are_mended_by_the_proposed_line(tmp_path: Path) -> None:
    for number in range(4):
        image, mask = scene(number)
        large = Image.fromarray(np.where(mask == 1, 255, 0).astype(np.uint8)).resize((150, 110))
        save(tmp_path / f"data/images/{number}.png", image)
        save(tmp_path / f"data/masks/{number}.png", np.asarray(large.resize(mask.shape[::-1])))
    finding = only(examine(tmp_path / "data"), "soft edges")
    line = finding.remedy.split("this one line: ")[1].split("; edges take")[0]
    (tmp_path / "data.yaml").write_text(line, "utf-8")
    assert examine(tmp_path / "data.yaml").errors == []


def test_no_yaml_is_proposed_for_a_published_layout(tmp_path: Path) -> None:
    path = make_voc(tmp_path)
    mask = next(tmp_path.rglob("2007_000000.png"))
    values = np.asarray(Image.open(mask)).copy()
    values[4:8, 4:8] = 77
    save(mask, values, LabelSet.numbered(21))
    finding = only(examine(path), "value of no class")
    assert finding.remedy == f"name the class; or make what has none void: {fix_command(str(path))}"


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Diagnosis:
    root = tmp_path_factory.mktemp("data") / "it's {fix} {{x}}\tand\nmore"
    make_broken(root)
    return examine(root)


def test_texts_are_whole(broken: Diagnosis) -> None:
    assert len(broken.findings) > 20
    for finding in broken.findings:
        remedy = finding.remedy.replace(fix_command(broken.listing.source), "")
        remedy = re.sub(r"one line: {path: .*}(?=;| \()", "", remedy)
        for text in (finding.title, finding.consequence, re.sub(r"(label_mapping|colors): {[^{}]*}", "", remedy)):
            assert "{" not in text
            assert "}" not in text
            assert text
        assert all("\n" not in line for line in [*finding.lines, *finding.shown, finding.remedy])
        assert finding.severity in SEVERITIES


def test_the_json_is_complete_and_valid(broken: Diagnosis) -> None:
    written = json.loads(json.dumps(broken.to_json()))
    assert written["splits"] == {split: len(scenes) for split, scenes in broken.listing.scenes.items()}
    assert written["layout"] == "plain folder"
    assert [(f["kind"], f["count"]) for f in written["findings"]] == [(f.kind, f.count) for f in broken.findings]
    assert (written["sides"], written["aspects"]) == ([72, 96], [96 / 72, 96 / 72])
    keys = {"kind", "severity", "count", "names", "title", "details", "consequence", "remedy"}
    assert all(set(f) == keys for f in written["findings"])
    assert all(len(f["names"]) <= 10 and len(f["details"]) <= 10 for f in written["findings"])
    task = written["tasks"][SEMANTIC]
    assert task["classes"] == ["ground", "water", "road", "house"]
    assert {split: len(own) for split, own in task["pixels"].items()} == dict.fromkeys(broken.listing.scenes, 4)
    assert sum(written["sizes"].values()) == len(broken.sizes())


@pytest.mark.parametrize("name", ["plain", "a b", "it's", 'say "x"', "$HOME", "a;b", "*", "-x", "ä"])
def test_the_command_is_quoted_for_a_shell(name: str) -> None:
    words = shlex.split(fix_command(name))
    assert words == ["fullconv", "doctor", "./-x" if name == "-x" else name, "--fix", "FIXED"]


def test_a_name_with_a_newline_is_one_line() -> None:
    assert fix_command("a\nb") == r"fullconv doctor 'a\nb' --fix FIXED"
    finding = Finding("unreadable mask", ("train/a\nb",), {"fix": "x"}, ("a\nb.png: is empty",))
    assert (finding.shown, finding.lines) == (("train/a\\nb",), ["a\\nb.png: is empty"])
    assert finding.to_json()["details"] == ["a\\nb.png: is empty"]


def test_ten_are_shown_and_the_rest_counted() -> None:
    names = tuple(f"train/{k}" for k in range(1234))
    assert Finding("image without mask", names).lines[9:] == ["train/9", "and 1,224 more"]
    assert Finding("image without mask", names[:10]).lines == list(names[:10])
    some = Finding("image without mask", names[:12], details=tuple(f"{n}: x" for n in names[:10]))
    assert some.lines[9:] == ["train/9: x", "and 2 more"]


def test_the_table_of_kinds_is_in_order() -> None:
    severities = [kind.severity for kind in KINDS.values()]
    assert severities == sorted(severities, key=SEVERITIES.index)
    assert all(KINDS[kind].severity == "error" for kind in SILENT)
    assert all(KINDS[kind].severity == "warning" and "{fix}" in KINDS[kind].remedy for kind in LEAKS)
    shuffled = [Finding(kind, ("a",)) for kind in reversed(KINDS)]
    assert [finding.kind for finding in by_severity(shuffled)] == list(KINDS)


def test_all_copies_in_train_of_an_image_in_val_are_named(tmp_path: Path) -> None:
    make_clean(tmp_path)
    for number in (3, 4):
        for kind in ("images", "masks"):
            shutil.copy(tmp_path / "val" / kind / "00.png", tmp_path / "train" / kind / f"{number:02}.png")
    findings = examine(tmp_path).findings
    assert [(f.kind, f.names) for f in findings] == [("same image across splits", ("train/03", "train/04"))]
    assert findings[0].details == ("train/03 and val/00", "train/04 and val/00")


def test_equal_images_with_masks_that_only_their_places_tell_apart(tmp_path: Path) -> None:
    make_clean(tmp_path)
    shutil.copy(tmp_path / "train/images/00.png", tmp_path / "train/images/01.png")
    save(tmp_path / "train/masks/01.png", original("train", 0)[1][:, ::-1])
    found = examine(tmp_path).findings
    assert [(f.kind, f.names, f.details) for f in found] == [
        ("same image, other mask", ("train/00",), ("train/00 and train/01",))
    ]
    save(tmp_path / "train/masks/01.png", original("train", 0)[1])  # grey, where the first is a palette mask
    assert examine(tmp_path).findings == []


def test_equal_images_of_which_a_mask_is_coded_otherwise_do_not_contradict(tmp_path: Path) -> None:
    make_clean(tmp_path)
    for number in (1, 2):
        shutil.copy(tmp_path / "train/images/00.png", tmp_path / f"train/images/{number:02}.png")
    save(tmp_path / "train/masks/01.png", LabelSet.numbered(4).palette()[original("train", 0)[1]])
    (tmp_path / "train/masks/02.png").write_bytes(b"")
    assert [f.kind for f in examine(tmp_path).findings] == ["unreadable mask", "colours"]


def test_a_class_that_is_almost_empty_is_given_its_weight(tmp_path: Path) -> None:
    make_clean(tmp_path)
    for path in tmp_path.rglob("masks/*.png"):
        mask = np.asarray(Image.open(path)).copy()
        mask[mask == 3] = 2
        if path.name == "00.png":
            mask[30, 40] = 3
        save(path, mask)
    found = examine(tmp_path)
    rare = next(f for f in found.findings if f.kind == "class almost empty")
    assert rare.names == ("house",)
    shares = sum(found.pixels(SEMANTIC).values())
    assert shares[3] / shares.sum() < ALMOST_EMPTY
    weight = found.weights(SEMANTIC)[3]
    assert rare.remedy == f"add images of them, merge them, or give them weight: house {weight:.3g}"


def test_one_class_and_mostly_void(tmp_path: Path) -> None:
    make_folder(tmp_path)
    for path in tmp_path.rglob("masks/*.png"):
        save(path, np.zeros((12, 16), np.uint8))
    assert [(f.kind, f.names) for f in examine(tmp_path).findings] == [("one class only", ("0",))]
    make_folder(tmp_path / "b")
    void = np.full((12, 16), VOID, np.uint8)
    save(tmp_path / "b/train/masks/0001.png", void)
    assert [(f.kind, f.names) for f in examine(tmp_path / "b").findings] == [("mostly void", ("train/0001",))]


def test_a_split_of_images_of_one_colour_is_named(tmp_path: Path) -> None:
    make_folder(tmp_path)
    for number, path in enumerate(sorted((tmp_path / "val/images").glob("*.png"))):
        save(path, np.full((12, 16, 3), (number, 70, 20), np.uint8))
    assert [(f.kind, f.names) for f in examine(tmp_path).findings] == [("constant image", ("val/0004", "val/0005"))]


def test_sides_and_aspects_are_the_least_and_the_greatest(tmp_path: Path) -> None:
    make_folder(tmp_path)
    save(tmp_path / "train/images/0000.png", np.zeros((10, 40, 3), np.uint8))
    found = examine(tmp_path)
    assert (found.sides(), found.aspects()) == ((10, 40), (16 / 12, 4.0))
    for path in tmp_path.rglob("images/*.png"):
        path.write_bytes(b"")
    nothing = examine(tmp_path).to_json()
    assert (nothing["sides"], nothing["aspects"]) == (None, None)


def test_the_weights_are_those_of_a_plain_computation(tmp_path: Path) -> None:
    make_clean(tmp_path)
    shares: dict[int, list[tuple[int, int]]] = {}
    for number in range(30):
        mask = original("train", number)[1]
        if number % 3:
            mask = np.where(mask == 3, 2, mask)
        save(tmp_path / f"train/masks/{number:02}.png", mask)
        labelled = int((mask != VOID).sum())
        for k in range(4):
            if (mask == k).any():
                shares.setdefault(k, []).append((int((mask == k).sum()), labelled))
    frequencies = [sum(a for a, _ in shares[k]) / sum(b for _, b in shares[k]) for k in range(4)]
    expected = np.median(frequencies) / np.array(frequencies)
    np.testing.assert_allclose(examine(tmp_path).weights(SEMANTIC), expected)


def test_a_class_that_train_lacks_has_no_weight(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "classes.txt").write_text("ground\na\nb\nnever\n")
    found = examine(tmp_path)
    assert np.isnan(found.weights(SEMANTIC)).tolist() == [False, False, False, True]
    assert found.to_json()["tasks"][SEMANTIC]["weights"][3] is None


def test_the_weights_of_camvid_are_near_those_published(shared_data: Path) -> None:
    weights = examine(shared_data / "camvid").weights(SEMANTIC)
    # SegNet's, as published (reference 7.6): sky, building, pole, road, ..., bicyclist.
    published = [0.2595, 0.1826, 4.5640, 0.1417, 0.9051, 0.3826, 9.6446, 1.8418, 0.6823, 6.2478, 7.3614]
    others = np.arange(11) != 6  # sign symbols: 3.8 here, from the same files; how SegNet counted them is not known
    assert np.argsort(weights[others]).tolist() == np.argsort(np.array(published)[others]).tolist()
    # A fifth: SegNet's list of training images and its median are not published with them; the order above is exact.
    np.testing.assert_allclose(weights[others], np.array(published)[others], rtol=0.2)
    assert 1 / 3 < weights[6] / published[6] < 3


def test_no_image_and_one_image_alone(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / "empty" / name).mkdir(parents=True)
    (only,) = examine(tmp_path / "empty").findings
    assert (only.kind, only.severity) == ("no image", "error")
    one = make_folder(tmp_path / "one", "{kind}/{name}", {"train": 1})
    (alone,) = [each for each in examine(one).findings if each.kind == "one image alone"]
    assert alone.names == ("train/0000",)
    assert alone.remedy == "add images or a val split; or cut it, in a YAML file: tile: 128"
    cut = tmp_path / "cut.yaml"
    cut.write_text(f"path: {one}\ntrain: images\nnames: [a, b, c]\ntile: 16\n")
    assert "one image alone" not in {each.kind for each in examine(cut).findings}
    both = make_folder(tmp_path / "both", counts={"train": 1, "val": 1})
    assert "one image alone" not in {each.kind for each in examine(both).findings}
