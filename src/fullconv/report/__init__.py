"""Pictures of labels, charts of scores, and the page that shows a run."""

from fullconv.report.charts import class_bars_png, confusion_png, curves_png
from fullconv.report.html import Preview, Report, write_report
from fullconv.report.pictures import colour, legend, overlay, triptych

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
