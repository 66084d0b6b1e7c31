"""`fullconv doctor`."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from broken_data import make_broken, make_clean
from command import Run, one_line
from fullconv.data.doctor import examine
from makers import make_folder, make_nyud, make_voc, make_wafer_maps, make_yaml, save


def digest(root: Path) -> str:
    parts = [str(p).encode() + p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_a_clean_data_set(run: Run, tmp_path: Path) -> None:
    result = run("doctor", make_clean(tmp_path / "data"))
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == f"{tmp_path / 'data'}: plain folder; train 30, val 8, test 6"
    assert lines[1] == "Images: 8-bit RGB, 72 x 96"
    assert lines[2] == "Sides: 72 to 96 pixels; width over height: 1.333"
    assert [line.split()[0] for line in lines[3:8]] == ["class", "ground", "water", "road", "house"]
    assert lines[-1] == "Nothing is wrong with it as far as a program can tell."


def test_a_broken_one_is_explained_and_fails(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "my data"
    expected = make_broken(root)
    before = digest(root)
    result = run("doctor", root)
    assert (result.code, result.err) == (1, "")
    found = examine(root)
    for finding in found.findings:
        assert f"{finding.severity}  {finding.title}: {len(expected[finding.kind])}\n" in result.out
        assert f"  what it does: {finding.consequence}\n" in result.out
        assert f"  what mends it: {finding.remedy}\n" in result.out
    assert f"fullconv doctor {shlex.quote(str(root))} --fix FIXED" in result.out
    assert digest(root) == before


def test_warnings_alone_do_not_fail(run: Run, tmp_path: Path) -> None:
    make_clean(tmp_path)
    save(tmp_path / "train/images/03.png", np.full((72, 96, 3), 9, np.uint8))
    result = run("doctor", tmp_path)
    assert result.code == 0
    assert "warning  images of one colour: 1\n    train/03\n" in result.out


def test_more_than_ten_are_counted(run: Run, tmp_path: Path) -> None:
    make_clean(tmp_path)
    for path in (tmp_path / "train/masks").iterdir():
        path.write_bytes(b"")
    out = run("doctor", tmp_path).out
    assert "error  masks that cannot be read: 30" in out
    assert out.count(": is empty (0 bytes)") == 10
    assert "    and 20 more\n" in out


def test_json(run: Run, tmp_path: Path) -> None:
    make_broken(tmp_path)
    result = run("doctor", tmp_path, "--json")
    assert (result.code, result.err) == (1, "")
    assert json.loads(result.out) == json.loads(json.dumps(examine(tmp_path).to_json()))


def test_fix(run: Run, tmp_path: Path) -> None:
    make_broken(tmp_path / "data")
    fixed = tmp_path / "the copy"
    result = run("doctor", tmp_path / "data", "--fix", fixed)
    assert result.code == 0
    assert "mended    classes counted from 0: 6\n" in result.out
    assert "left out  the image cannot be read: 2\n" in result.out
    assert "left      images of one colour\n" in result.out
    assert f"Written   37 scenes to {fixed}; changes.json there names every change\n" in result.out
    assert result.out.splitlines()[-1] == f"Next      fullconv train --data {shlex.quote(str(fixed))}"
    assert run("doctor", fixed).code == 0

    again = run("doctor", tmp_path / "data", "--fix", fixed)
    assert again.code == 2
    assert one_line(again).endswith("exists and is not an empty folder; name a new one")
    before = run("doctor", tmp_path / "none", "--fix", fixed)
    assert one_line(before).endswith("name a new one"), "that is told before anything is examined"


def test_fix_of_tiles_names_the_yaml_file_to_train_on(run: Run, tmp_path: Path) -> None:
    result = run("doctor", make_yaml(tmp_path / "data", "tile: 16"), "--fix", tmp_path / "the copy")
    assert result.code == 0
    assert result.out.splitlines()[-1] == f"Next      fullconv train --data '{tmp_path}/the copy/data.yaml'"


def test_fix_as_json(run: Run, tmp_path: Path) -> None:
    make_broken(tmp_path / "data")
    result = run("doctor", tmp_path / "data", "--fix", tmp_path / "fixed", "--json")
    assert result.code == 0
    written = json.loads(result.out)
    assert written["fixed"] == json.loads((tmp_path / "fixed/changes.json").read_text())
    assert written["layout"] == "plain folder"


def test_the_page(run: Run, tmp_path: Path) -> None:
    make_clean(tmp_path / "data")
    page = tmp_path / "pages" / "doctor.html"
    result = run("doctor", tmp_path / "data", "--report", page)
    assert result.code == 0
    assert result.out.splitlines()[-1] == f"Report    {page}"
    assert "fullconv doctor" in page.read_text("utf-8")


def test_what_cannot_be_examined_is_one_line(run: Run, tmp_path: Path) -> None:
    assert "no such data set" in one_line(run("doctor", tmp_path / "none"), 1)
    assert "is empty; expected" in one_line(run("doctor", tmp_path), 1)
    assert "can be repaired, others by hand" in one_line(
        run("doctor", make_nyud(tmp_path / "nyud"), "--fix", tmp_path / "fixed"), 2
    )
    assert not (tmp_path / "fixed").exists()
    assert run("doctor").code == 2


@pytest.mark.parametrize("source", ["wafer", "maps"])
def test_data_without_files(run: Run, tmp_path: Path, source: str) -> None:
    path = source if source == "wafer" else make_wafer_maps(tmp_path)
    result = run("doctor", path)
    assert result.code == 0
    assert result.out.splitlines()[1:] == ["It has no files of images and masks to look at."]


def test_a_split_that_cannot_be_opened_is_told(run: Run, tmp_path: Path) -> None:
    path = make_voc(tmp_path)
    for image in tmp_path.rglob("*.jpg"):
        image.unlink()
    result = run("doctor", path, "--report", tmp_path / "page.html")
    assert result.code == 1
    assert "error  splits that cannot be opened: 3" in result.out
    assert "; no files\n" in result.out


def test_names_that_would_be_markup_or_control_the_terminal(run: Run, tmp_path: Path) -> None:
    root = make_folder(tmp_path / "[bold]x[/]")
    (root / "classes.txt").write_text("[red]ground[/]\n[link=http://x.y]a\n\x1b[31mb\n")
    for kind in ("images", "masks"):
        (root / "train" / kind / "0000.png").rename(root / "train" / kind / "\x1b[2J[red].png")
    (root / "train/masks/\x1b[2J[red].png").write_bytes(b"")
    result = run("doctor", root)
    assert result.code == 1
    assert "\x1b" not in result.out
    for text in ("[bold]x[/]", "[red]ground[/]", "[link=http://x.y]a", r"\x1b[31mb", r"\x1b[2J[red]"):
        assert text in result.out
