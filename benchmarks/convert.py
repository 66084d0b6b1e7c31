"""A full-size FCN-8s .caffemodel (538 MB) with random weights -> a model file: what `fullconv convert` takes.

    python benchmarks/convert.py --runs 3

The file is written by the tests' own writer. Memory is the peak resident size of the process; beside it stands that
of a process which only imports what the command needs.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from measure import ROOT, commit

WRITE = f"""
import sys; sys.path.insert(0, {str(ROOT / "tests")!r})
from pathlib import Path
from caffe_nets import caffe_net; from caffe_writer import write_caffemodel
write_caffemodel(Path(sys.argv[1]), caffe_net("voc-fcn8s", (500, 500)).layers)
"""
CONVERT = "import sys; from fullconv.cli import main; sys.argv = ['fullconv', 'convert', *sys.argv[1:]]; main()"
IMPORTS = "import fullconv.weights.convert, fullconv.cli"


def measured(code: str, *arguments: str) -> tuple[float, float]:
    """Seconds and peak MB of a process of its own. This one stays small: a child's peak includes its parent's."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{code!r} failed")
    return time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e6


def main() -> None:
    """Write the file, convert it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, target = folder / "fcn8s-heavy-pascal.caffemodel", folder / "voc-fcn8s.safetensors"
        measured(WRITE, str(source))
        print(
            f"{source.name}: {source.stat().st_size / 1e6:.1f} MB, {runs} runs in turns, commit {commit()}, "
            f"torch {version('torch')}, Python {platform.python_version()}, {platform.machine()}\n"
        )
        arguments = (str(source), "--net", "voc-fcn8s", "-o", str(target))
        whole, bare = [], []
        for _ in range(runs):
            whole.append(measured(CONVERT, *arguments))
            bare.append(measured(IMPORTS))
        print("| process | median s | spread | peak MB |\n|---|---|---|---|")
        for what, figures in (("fullconv convert", whole), ("imports alone", bare)):
            seconds = sorted(s for s, _ in figures)
            spread = f"{seconds[0]:.2f} ... {seconds[-1]:.2f}"
            print(f"| {what} | {statistics.median(seconds):.2f} | {spread} | {max(m for _, m in figures):.0f} |")
        print(f"{target.name}: {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
