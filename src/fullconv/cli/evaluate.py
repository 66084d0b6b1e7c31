"""`fullconv evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

from fullconv.cli.options import DataSource, Json, ModelPath, Precision
from fullconv.cli.show import class_names, print_json, print_scores, progress_bar


def evaluate(
    model: ModelPath,
    data: DataSource,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    precision: Precision = "float32",
    json_: Json = False,
) -> None:
    """Score a model: pixel accuracy, mean accuracy, mean IU, f.w. IU, per class, at native resolution."""
    from fullconv.inference.evaluate import evaluate as run

    with progress_bar(json_) as bar:
        line = bar.add_task("scoring", total=None, facts="")
        result = run(
            model,
            data,
            split,
            precision=precision,
            progress=lambda done, total: bar.update(line, completed=done, total=total),
        )
    scores = {task: matrix.scores() for task, matrix in result.matrices.items()}
    names = class_names(model)
    if json_:
        tasks = {task: {"classes": names[task], **each.to_json()} for task, each in scores.items()}
        # The first task's numbers stand on top, so that the ordinary case need not know that there are tasks.
        print_json({"split": split, **next(iter(tasks.values())), **({"tasks": tasks} if len(tasks) > 1 else {})})
        return
    for task, each in scores.items():
        print_scores(each, names[task], f"{data}, {split}" + (f", {task}" if len(scores) > 1 else ""))
