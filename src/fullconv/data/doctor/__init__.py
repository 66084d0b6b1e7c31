"""doctor: what is wrong with a data set, before anything is learned from it; and its repair."""

from fullconv.data.doctor.checks import fix_command
from fullconv.data.doctor.diagnosis import Diagnosis
from fullconv.data.doctor.examine import examine
from fullconv.data.doctor.findings import KINDS, SILENT, Finding
from fullconv.data.doctor.repair import Repaired, repair

__all__ = ["KINDS", "SILENT", "Diagnosis", "Finding", "Repaired", "examine", "fix_command", "repair"]
