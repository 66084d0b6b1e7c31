"""Pictures of labels, charts of scores, and the page that shows a run."""

from fullconv.report.html import Preview, Report, write_report
from fullconv.report.pictures import class_bars_png, colour, confusion_png, curves_png, legend, overlay, triptych

__all__ = [
    "Preview",
    "Report",
    "class_bars_png",
    "colour",
    "confusion_png",
    "curves_png",
    "legend",
    "overlay",
    "triptych",
    "write_report",
]
