"""CVAT for images: what the format says, by hand; and the real pieces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fullconv.data.annotations import import_annotations
from fullconv.data.mask import MaskReader
from makers import save
from refusals import refusal

META = (
    "<meta><task><labels><label><name>road</name><color>#0a0B0c</color></label>"
    "<label><name>Background</name><color>#ffffff</color></label>"
    "<label><name>car</name><color>#fa3253</color></label></labels></task></meta>"
)


def cvat(path: Path, inside: str, meta: str = META, attributes: str = 'width="6" height="4"') -> Path:
    """A file with one image `a.png`, 4 x 6."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path.parent / "images" / "a.png", np.zeros((4, 6, 3), np.uint8))
    image = f'<image id="0" name="a.png" {attributes}>{inside}</image>'
    text = f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{meta}{image}</annotations>'
    path.write_text(text)
    return path


def mask(path: Path) -> list[list[int]]:
    return MaskReader(255).read(path).tolist()


def test_every_kind_of_shape(tmp_path: Path) -> None:
    cvat(
        tmp_path / "in/annotations.xml",
        '<polygon label="car" points="0.0,0.0;2.0,0.0;2.0,2.0;0.0,2.0" z_order="1" occluded="0"/>'
        '<box label="road" xtl="1" ytl="0" xbr="6" ybr="1" z_order="0"/>'
        '<mask label="car" rle="1, 2, 1" left="4" top="2" width="2" height="2" z_order="0"/>'
        '<ellipse label="road" cx="3.5" cy="2.5" rx="0.6" ry="1.1" z_order="0"/>'
        '<ellipse label="Background" cx="0.5" cy="0.5" rx="0.5" ry="0.5" z_order="2"/>'
        '<polyline label="car" points="0,0;1,1"/><points label="car" points="0,0"/><tag label="car"/><points/>',
    )
    done = import_annotations(tmp_path / "in", tmp_path / "out")
    assert done.labels.names == ("background", "road", "car")
    assert done.labels.colours == ((255, 255, 255), (10, 11, 12), (250, 50, 83))
    assert mask(tmp_path / "out/masks/a.png") == [
        [0, 2, 1, 1, 1, 1], [2, 2, 0, 1, 0, 0], [0, 0, 0, 1, 0, 2], [0, 0, 0, 1, 2, 0],
    ]  # fmt: skip
    assert "4 annotations without area are left out: 2 points, 1 polyline, 1 tag" in done.notes


def test_turned_shapes(tmp_path: Path) -> None:
    """A quarter turn about the centre (3, 2)."""
    box = '<box label="car" xtl="1" ytl="1.5" xbr="5" ybr="2.5" rotation="90.0"/>'
    cvat(tmp_path / "in/a.xml", box)
    import_annotations(tmp_path / "in", tmp_path / "out")
    # Its columns are those whose centres are at or right of 2.5 and left of 3.5; 90 degrees are not exact in floats.
    found = np.array(mask(tmp_path / "out/masks/a.png"))
    assert (found[:, [0, 1, 4, 5]] == 0).all()
    assert ((found[:, 2] > 0) ^ (found[:, 3] > 0)).all()
    cvat(tmp_path / "in/a.xml", '<ellipse label="car" cx="2.5" cy="2" rx="2" ry="0.4" rotation="90.0"/>')
    import_annotations(tmp_path / "in", tmp_path / "out2")
    assert mask(tmp_path / "out2/masks/a.png") == [[0, 0, 2, 0, 0, 0]] * 4


def test_area_instead_of_z_order(tmp_path: Path) -> None:
    inside = (
        '<box label="car" xtl="1" ytl="1" xbr="2" ybr="2" z_order="0"/>'
        '<box label="road" xtl="0" ytl="0" xbr="6" ybr="4" z_order="5"/>'
    )
    cvat(tmp_path / "in/a.xml", inside)
    import_annotations(tmp_path / "in", tmp_path / "tool")
    assert mask(tmp_path / "tool/masks/a.png") == [[1] * 6] * 4
    import_annotations(tmp_path / "in", tmp_path / "area", order="area")
    assert mask(tmp_path / "area/masks/a.png")[1] == [1, 2, 1, 1, 1, 1]


def test_without_a_head_labels_are_those_that_occur(tmp_path: Path) -> None:
    cvat(tmp_path / "in/a.xml", '<box label="z" xtl="0" ytl="0" xbr="1" ybr="1"/>', "")
    assert import_annotations(tmp_path / "in", tmp_path / "out").labels.names == ("background", "z")


BOX = '<box label="car" xtl="0" ytl="0" xbr="1" ybr="1"/>'


@pytest.mark.parametrize(
    ("inside", "meta", "attributes", "message"),
    [
        ("<hexagon/>", META, 'width="6" height="4"', "image[0] holds <hexagon>, expected polygon, box, ellipse, mask"),
        ("<polygon points='1,2'/>", META, 'width="6" height="4"', "image[0].polygon[0] has no 'label'"),
        ("<polygon label='car' points='1,2;3'/>", META, "", "points is '1,2;3', expected points 'x,y;x,y;...'"),
        ("<polygon label='car' points='1,b'/>", META, "", "points is '1,b', expected numbers with commas"),
        ("<polygon label='car' points='1,nan'/>", META, "", "points[1] is nan, expected a number of"),
        ("<box label='car' xtl='a'/>", META, "", "box[0].xtl is 'a', expected a number"),
        ("<box label='car' z_order='1.5'/>", META, "", "z_order is 1.5, expected a whole number"),
        (BOX, META, "", "image[0] has no 'height'"),
        (BOX, META, 'width="4" height="6"', "image[0] is 6 x 4 (H x W), its image "),
        (BOX, META.replace("#fa3253", "red"), "", "meta.label[2].color is 'red', expected a colour such as"),
        (BOX, "<meta><task><labels><label/></labels></task></meta>", "", "meta.label[0] is None, expected text"),
        (BOX, "<", "", " is not valid XML (ParseError: "),
        (
            "<mask label='car' rle='5' left='0' top='0' width='2' height='2'/>",
            META, 'width="6" height="4"', "image[0].mask[0]: its run lengths do not add up to 2 x 2",
        ),
        (
            "<mask label='car' rle='1.5,2.5' left='0' top='0' width='2' height='2'/>",
            META, 'width="6" height="4"', "rle is [1.5, 2.5], expected a list of whole numbers",
        ),
        (
            "<mask label='car' rle='10000000000' left='0' top='0' width='99999' height='100000'/>",
            META, 'width="6" height="4"', "rle[0] is 10000000000.0, expected a number of 0 to",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, inside: str, meta: str, attributes: str, message: str) -> None:
    path = cvat(tmp_path / "in/a.xml", inside, meta, attributes)
    found = refusal(import_annotations, tmp_path / "in", tmp_path / "out")
    assert found.startswith(f"{path}")
    assert message in found
    assert not (tmp_path / "out").exists()


def test_other_xml(tmp_path: Path, shared_data: Path) -> None:
    video = shared_data / "annotations/datumaro/cvat_dataset/for_video"
    assert refusal(import_annotations, video, tmp_path / "out") == (
        f"{video / 'annotations.xml'}: holds tracks of a video; export it as 'CVAT for images 1.1'"
    )


def test_a_video_and_another_root(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text("<annotations><track/></annotations>")
    assert refusal(import_annotations, path, tmp_path / "out").endswith("export it as 'CVAT for images 1.1'")
    path.write_text("<annotation/>")
    found = refusal(lambda: import_annotations(path, tmp_path / "out", format="cvat"))
    assert found == f"{path}: begins with <annotation>, expected CVAT's <annotations>"


def test_entities_are_no_bombs(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text('<!DOCTYPE a [<!ENTITY b "bbbb">]><annotations>&b;</annotations>')
    assert "is not valid XML (DTDForbidden: " in refusal(import_annotations, path, tmp_path / "out")


def test_real_pieces(shared_data: Path, tmp_path: Path) -> None:
    """A box of rows 2, 3 and columns 0 to 3; a triangle whose pixels were found by hand."""
    source = shared_data / "annotations/datumaro/cvat_dataset/for_images"
    done = import_annotations(source / "export_project", tmp_path / "out")
    assert done.labels.names == ("background", "label1", "label2")
    assert done.images == 6
    for split, folder in {"train": "Train", "val": "Validation", "test": "Test"}.items():
        box = np.zeros((8, 8), int)
        box[2:4, :4] = 1
        assert mask(tmp_path / "out" / split / "masks/img0.png") == box.tolist()
        triangle = np.zeros((10, 10), int)
        triangle[2, 1] = triangle[3, 2] = triangle[3, 3] = triangle[4, 4] = 1
        found = np.array(mask(tmp_path / "out" / split / "masks/img1.png"))
        assert abs(found.sum() - 3.5) <= 1  # of area 3.5
        assert (found[triangle == 0] == 0).all()
        copied = tmp_path / "out" / split / "images/img0.jpg"
        assert copied.read_bytes() == (source / "export_project/images" / folder / "img0.jpg").read_bytes()
    found = refusal(import_annotations, source / "export_task", tmp_path / "task")
    assert found.startswith("1 labels are outside of the classes (label1, label2): '' (1); ")
    done = import_annotations(source / "export_task", tmp_path / "task", others="void")
    assert done.void == 3
