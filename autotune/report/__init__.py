"""A report on an artifact: one HTML file that opens anywhere, without a network."""

from autotune.report.base import Facts, ReportSection
from autotune.report.report import report

__all__ = ["Facts", "ReportSection", "report"]
