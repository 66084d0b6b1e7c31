"""What docs/data.md shows: its YAML is read, and its examples open on the data they are about. What docs/training.md
names is there."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fullconv.cli.train import train
from fullconv.data import available_splits, open_dataset
from fullconv.data.sample import IMAGE, SEMANTIC
from fullconv.data.yamlfile import KEYS
from fullconv.inference.model import Model
from fullconv.labels import VOID
from fullconv.nets import build
from fullconv.training.losses import CLASS_WEIGHTS, REDUCTIONS, TERMS
from fullconv.training.recipe import NAMES
from fullconv.training.recipes import RECIPES

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


TRAINING = (Path(__file__).resolve().parents[1] / "docs" / "training.md").read_text(encoding="utf-8")


def test_the_page_on_training_has_every_recipe_loss_and_rule() -> None:
    table = TRAINING.partition("## Recipes")[2].partition("##")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(RECIPES)
    for name in (*TERMS, *REDUCTIONS, *CLASS_WEIGHTS):
        assert f"`{name}`" in TRAINING, name
    assert set(re.findall(r"--set (\w+)=", TRAINING)) <= NAMES | {"NAME"}


def test_the_page_on_training_names_options_that_exist() -> None:
    own = {f"--{name.rstrip('_').replace('_', '-')}" for name in inspect.signature(train).parameters}
    others = {  # of other programs, and of `fullconv compare`
        "--nproc-per-node", "--nnodes", "--shutdown-timeout", "--rdzv-backend", "--rdzv-endpoint", "--multi_gpu",
        "--num_processes",
        "--report", "--nodes", "--ntasks-per-node", "--gpus-per-node", "--signal", "--exclusive", "--cpus-per-task",
    }  # fmt: skip
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", TRAINING))
    assert named <= own | others
    table = TRAINING.partition("| name | of a recipe |")[2].partition("\n\n")[0]
    in_table = {word for line in table.splitlines()[2:] for word in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert in_table == {name for name in NAMES if f"--{name.replace('_', '-')}" not in own}, "those of --set"
    assert own - named == {"--json", "--padding", "--upsampling", "--inputs", "--splits"}, "that other pages explain"


LARGE = (Path(__file__).resolve().parents[1] / "docs" / "large.md").read_text(encoding="utf-8")


def test_the_python_of_the_page_on_large_images_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", LARGE, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    Model(build("fcn8s-slim", 3, width=1 / 8)).save("model.safetensors")
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["labels"].shape == (1, 300, 400)
    plan, verification = capsys.readouterr().out.splitlines()
    assert plan.startswith("300 x 400 pixels, ")
    assert verification.startswith("against the plain net on the whole image: ")
