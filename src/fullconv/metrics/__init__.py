"""Metrics: the confusion matrix and the paper's four numbers; scores of class boundaries; sums over processes."""

from fullconv.metrics.boundary import BoundaryF as BoundaryF
from fullconv.metrics.boundary import BoundaryScores as BoundaryScores
from fullconv.metrics.confusion import Absent as Absent
from fullconv.metrics.confusion import ConfusionMatrix as ConfusionMatrix
from fullconv.metrics.confusion import Scores as Scores
from fullconv.metrics.trimap import Trimap as Trimap
