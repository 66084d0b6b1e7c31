"""`fullconv upper-bound`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fullconv.cli.options import Json, whole_numbers
from fullconv.cli.show import percent, print_json, progress_bar
from fullconv.errors import OptionError

if TYPE_CHECKING:
    from fullconv.inference.upper_bound import Bounds


def upper_bound(
    data: Annotated[str, typer.Argument(metavar="DATA", help="As of train: a folder, a YAML file or 'wafer'.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    factors: Annotated[str, typer.Option(help="Strides, with commas.")] = "2,4,8,16,32,64,128",
    share: Annotated[float, typer.Option(help="Mean IU that the masks' stride must allow, 0 to 1.")] = 0.95,
    json_: Json = False,
) -> None:
    """The best mean IU that a net of each stride can reach: masks down- and up-sampled, against themselves."""
    if not 0 < share <= 1:
        raise OptionError(f"--share {share:g}; expected a mean IU above 0, up to 1")
    wanted = whole_numbers("--factors", factors, "whole numbers with commas, such as 8,16,32")
    from fullconv.data import open_dataset
    from fullconv.inference.upper_bound import upper_bound as run

    dataset = open_dataset(data, split)
    with progress_bar(json_) as bar:
        line = bar.add_task("sampling masks", total=None, facts="")
        bounds = run(
            dataset, factors=wanted, progress=lambda done, total: bar.update(line, completed=done, total=total)
        )
    names = {task: labels.names for task, labels in dataset.labels.items()}
    if json_:
        tasks = {
            task: {
                "classes": list(names[task]),
                "stride": bounds.stride(task, share),
                "class_strides": list(bounds.class_strides(task, share)),
                "factors": {str(factor): scores.to_json() for factor, scores in each.items()},
            }
            for task, each in bounds.scores.items()
        }
        first = next(iter(tasks.values()))
        print_json({"split": split, "share": share, **first, **({"tasks": tasks} if len(tasks) > 1 else {})})
        return
    for task in bounds.scores:
        _print(bounds, task, names[task], share, f"{data}, {split}" + (f", {task}" if len(names) > 1 else ""))


def _print(bounds: Bounds, task: str, names: tuple[str, ...], share: float, title: str) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    factors = bounds.scores[task]
    table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False)
    table.add_column("IU of masks at stride")
    for factor in factors:
        table.add_column(str(factor), justify="right")
    table.add_column(f"stride for {percent(share)}", justify="right")
    strides = bounds.class_strides(task, share)
    for label, (name, stride) in enumerate(zip(names, strides, strict=True)):
        cells = [percent(each.iu[label]) for each in factors.values()]
        table.add_row(escape(name), *cells, "n/a" if stride is None else str(stride))
    table.add_section()
    for head, key in (
        ("pixel accuracy", "pixel_accuracy"),
        ("mean accuracy", "mean_accuracy"),
        ("mean IU", "mean_iu"),
        ("f.w. IU", "fw_iu"),
    ):
        own = str(bounds.stride(task, share)) if key == "mean_iu" else ""
        table.add_row(head, *(percent(getattr(each, key)) for each in factors.values()), own)
    console.print(table)
    stride = bounds.stride(task, share)
    reach = f"up to stride {stride}" if stride > 1 else f"only below stride {min(factors)}"
    console.print(f"These masks allow a mean IU of {percent(share)} {reach}.", soft_wrap=True)
    thin = [name for name, own in zip(names, strides, strict=True) if own is not None and own < stride]
    if thin:
        console.print(escape(f"These classes need a finer stride: {', '.join(map(repr, thin))}."), soft_wrap=True)
