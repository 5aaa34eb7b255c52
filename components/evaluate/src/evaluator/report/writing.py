"""The report's files: the page, and its plots beside it."""

import re

from evaluator.report.analysis import Analysis
from evaluator.report.data import ReportData
from evaluator.report.page import Sections, render
from evaluator.report.sections.curves import curves
from evaluator.report.sections.groups import by_condition
from evaluator.report.sections.results import results
from evaluator.report.sections.wrong import wrong_decisions
from voxsrc import storage

REPORT_NAME = "report.html"
PLOT_NAME = re.compile(r"(det|scores|calibration|condition-[0-9]+)\.png")


def write_report(output_uri: str, data: ReportData) -> None:
    """Writes `report.html` and a PNG of each of its plots, the page last; each file atomically.

    The page needs nothing else: no network, no other file, no storage of the browser.

    Args:
        output_uri: Folder, local or in a bucket.
        data: What to report.

    Raises:
        ReportError: If a clip is of an unknown format.
        StorageError: If a file cannot be written.
    """
    analysis = Analysis(data)
    sections = Sections(
        results(analysis), curves(analysis), by_condition(analysis), wrong_decisions(analysis)
    )
    page = render(data, sections)
    for plot in sections.plots:
        storage.write_bytes(storage.join(output_uri, f"{plot.name}.png"), plot.png)
    storage.write_bytes(storage.join(output_uri, REPORT_NAME), page.encode())
