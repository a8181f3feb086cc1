"""Reports people look at, and two runs compared.

``write_report(out)`` makes ``report.html`` of a finished evaluation: one file that works offline, in light
and dark, on paper, and read aloud.
"""

from eval.reporting.report import REPORT_FILE, render_report, write_report

__all__ = ["REPORT_FILE", "render_report", "write_report"]
