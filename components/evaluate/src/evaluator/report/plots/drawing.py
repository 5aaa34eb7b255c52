"""The look of all plots, and their way to PNG and to SVG that follows the page's light or dark colours."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.typing import LineStyleType

INK, MUTED, GRID, PAPER = "#1d2733", "#566270", "#dde2e8", "#ffffff"
# Okabe and Ito's colours for every kind of colour vision, darkened to 3:1 against white.
SYSTEM_COLOURS = ("#0a66ae", "#c4520c", "#00795a", "#a34a87", "#8a6d00", "#3187b8", "#5b6470")
_DASHES: tuple[LineStyleType, ...] = ("-", (0, (5, 1.6)), (0, (1.5, 1.3)), (0, (5, 1.3, 1.3, 1.3)))
# By these names the page's style sheet has a colour for light and one for dark.
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    PAPER: "--paper",
    **{colour: f"--system-{number}" for number, colour in enumerate(SYSTEM_COLOURS)},
}
_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "figure.facecolor": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.fontsize": 9.0,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.8,
    "path.simplify": True,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "voxsrc",
    "text.color": INK,
    # Names of systems and groups are text, not formulas.
    "text.parse_math": False,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 9.0,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 9.0,
}
_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_WIDTH_INCHES = 5.6


@dataclass(frozen=True)
class Plot:
    """One drawn figure.

    Attributes:
        name: Of its PNG, without the ending; also the prefix of its ids within the page.
        alt: What it shows, for readers who do not see it.
        svg: An `<svg>` element for the page.
        png: The same as a PNG file, on white.
    """

    name: str
    alt: str
    svg: str
    png: bytes


@contextmanager
def styled() -> Iterator[None]:
    """Figures are made, drawn and saved inside of it."""
    with matplotlib.rc_context(_STYLE):
        yield


def new_figure(height_inches: float) -> Figure:
    """A figure of the common width, which neither pyplot nor a display knows of."""
    figure = Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def colour_of(position: int) -> str:
    """The colour of the system at a position in the report."""
    return SYSTEM_COLOURS[position % len(SYSTEM_COLOURS)]


def dashes_of(position: int) -> LineStyleType:
    """The line style of the system at a position, so that curves differ without their colour as well."""
    return _DASHES[position % len(_DASHES)]


def shortened(name: str, length: int = 28) -> str:
    """A name that fits into a plot; the tables have it whole."""
    return name if len(name) <= length else name[: length - 1] + "…"


def legend_below(figure: Figure, handles: Sequence[Artist], *, columns: int = 2) -> None:
    """A legend under the axes, where it hides nothing."""
    figure.legend(handles=list(handles), loc="outside lower left", ncols=columns, handlelength=2.4)


def finish(figure: Figure, name: str, alt: str) -> Plot:
    """Saves a figure in both forms; call within `styled`."""
    svg = _svg(figure, name)
    # Half of the time goes into the layout, which is found by now.
    figure.set_layout_engine("none")
    return Plot(name, alt, svg, _png(figure))


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, facecolor=PAPER, metadata={"Software": None})
    return buffer.getvalue()


def _svg(figure: Figure, name: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=_METADATA)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<[^>]*>", lambda tag: _tag_for_page(tag[0], name), text)
    return re.sub(r"\n\s*", "\n", text).strip()


def _tag_for_page(tag: str, name: str) -> str:
    # HTML knows the name spaces by the element; declared, they would only look like links.
    tag = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", tag).replace("xlink:href", "href")
    # Ids are unique within a page only with the plot's name before them.
    tag = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{name}-", tag)
    tag = re.sub(r"font-family:[^;\"]*;?", "", tag)
    tag = re.sub(
        r"#[0-9a-f]{6}\b",
        lambda colour: f"var({_VARIABLES[colour[0]]})" if colour[0] in _VARIABLES else colour[0],
        tag,
    )
    if tag.startswith("<svg"):
        # The page gives the width; the text alternative is its figure's.
        tag = re.sub(r'\s(width|height)="[^"]*"', "", tag)
        tag = tag.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
    return tag
