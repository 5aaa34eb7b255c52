"""The page's template, style sheet and script, and how they become one file that needs nothing else."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined

from evaluator.report.data import ReportData
from evaluator.report.plots.drawing import Plot
from evaluator.report.sections.curves import Curves
from evaluator.report.sections.groups import ByCondition
from evaluator.report.sections.results import Results
from evaluator.report.sections.wrong import Wrong


@dataclass(frozen=True)
class Sections:
    """What the template fills in."""

    results: Results
    curves: Curves
    by_condition: ByCondition
    wrong: Wrong

    @property
    def plots(self) -> list[Plot]:
        """All plots, in the order of the page."""
        of_groups = (group.plot for group in self.by_condition.groups)
        plots = (self.curves.det, self.curves.histogram, self.curves.calibration, *of_groups)
        return [plot for plot in plots if plot is not None]


def render(data: ReportData, sections: Sections) -> str:
    """The whole page; everything but plots, style and script is escaped."""
    environment = Environment(
        loader=PackageLoader("evaluator.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _text("report.js")
    # Only this script may run, whatever else gets into the page.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html.j2").render(
        data=data,
        sections=sections,
        headings=_headings(data, sections),
        style=_text("report.css"),
        script=script,
        script_hash=f"sha256-{digest}",
    )


def _headings(data: ReportData, sections: Sections) -> Mapping[str, str]:
    """The sections that there are, by id."""
    headings = {
        "results": "Results",
        "facts": "What was evaluated" if data.facts else "",
        "curves": "Errors and thresholds",
        "calibration": "Calibration",
        "conditions": "By condition" if sections.by_condition.groups else "",
        "speakers": "Speakers",
        "errors": "Worst errors",
        "glossary": "What the numbers mean" if sections.results.glossary else "",
    }
    return {name: heading for name, heading in headings.items() if heading}


def _text(name: str) -> str:
    return resources.files("evaluator.report").joinpath("page", name).read_text("utf-8")
