"""What docs/data.md shows: its YAML is read, and its examples open on the data they are about."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from fullconv.data import available_splits, open_dataset
from fullconv.data.sample import IMAGE, SEMANTIC
from fullconv.data.yamlfile import KEYS
from fullconv.labels import VOID

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)

EXAMPLES = {"aerial": (3, 5), "steel": (3, 4), "magtile": (3, 2), "sentinel": (10, 9)}
"""Data set -> channels and classes."""


def test_the_page_shows_every_key() -> None:
    assert set(yaml.safe_load(BLOCKS[0])) == set(KEYS) - {"test"}


def test_every_example_has_its_result() -> None:
    assert len(re.findall(r"^Mean IU \*\*\d\d\.\d\*\*", PAGE, re.MULTILINE)) == len(EXAMPLES)


def test_there_is_an_example_of_each_data_set() -> None:
    assert [yaml.safe_load(block)["path"] for block in BLOCKS[1:]] == list(EXAMPLES)
    assert all(len(block.splitlines()) <= 10 for block in BLOCKS[1:])


@pytest.mark.parametrize(("name", "channels", "classes"), [(name, *facts) for name, facts in EXAMPLES.items()])
def test_examples_open(shared_data: Path, tmp_path: Path, name: str, channels: int, classes: int) -> None:
    (text,) = [block for block in BLOCKS[1:] if yaml.safe_load(block)["path"] == name]
    path = tmp_path / f"{name}.yaml"
    path.write_text(text.replace(f"path: {name}", f"path: {shared_data / name}"), "utf-8")
    assert {"train", "val"} <= set(available_splits(path))
    for split in ("train", "val"):
        dataset = open_dataset(path, split)
        assert len(dataset) > 3
        sample = dataset[0]
        assert sample.inputs[IMAGE].shape[2] == channels
        assert len(dataset.labels[SEMANTIC]) == classes
        assert set(np.unique(sample.masks[SEMANTIC])) <= {*range(classes), VOID}
