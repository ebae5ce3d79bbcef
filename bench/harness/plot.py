"""The plot of a report: a line for each contestant, both axes logarithmic; to be read on white and on black."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .contestant import BenchError
from .measure import Case
from .report import Report, number_text

# Middle greys and hues (Okabe and Ito, lightened where they are dark) that stand out on either background.
_GREY = "#8b949e"
_HUES = ("#e8590c", "#2f9e6e", "#3b8eea", "#c264c0", "#d4a106", "#56b4e9", "#e06c75", "#7f8fa6", "#a0785a", "#6fbf3f")
_MARKS = "osD^vPX<>*"
# Up to here powers of ten alone would leave an axis without marks.
_FEW_DECADES = 100


def draw(report: Report, path: Path) -> None:
    """Writes an .svg or a .png. Raises BenchError where matplotlib is missing."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise BenchError(f"a plot needs matplotlib ({error}); pip install 'slabwire[bench]'") from error
    mpl.use("agg")
    settings: dict[Any, Any] = {
        "svg.hashsalt": "slabwire",  # the same figures make the same file
        "font.size": 11,
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), _GREY),
    }
    with mpl.rc_context(settings):
        figure = _figure(report)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, transparent=True, bbox_inches="tight", dpi=150, metadata=metadata)


def _figure(report: Report) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 4.8))
    axes = figure.subplots()
    cases = list(dict.fromkeys(cell.case for cell in report.results))
    if len(cases) == 1:
        _bars(axes, report)
    else:
        _lines(axes, report, cases)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def _lines(axes: Any, report: Report, cases: list[Case]) -> None:
    from matplotlib.ticker import LogLocator

    ends = []
    for number, name in enumerate(dict.fromkeys(cell.contestant for cell in report.results)):
        points = [(cell.case.x, each.median) for cell, each in report.results.items() if cell.contestant == name]
        across, up = zip(*sorted(points), strict=True)
        hue, mark = _HUES[number % len(_HUES)], _MARKS[number % len(_MARKS)]
        axes.plot(across, up, color=hue, marker=mark, markersize=5, linewidth=1.8, label=report.title_of[name])
        ends.append((up[-1], report.title_of[name]))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([each.x for each in cases], [each.text for each in cases])
    axes.minorticks_off()
    low, high = axes.get_ylim()
    if high < _FEW_DECADES * low:
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(lambda value, _: number_text(value) if value < 10 else f"{value:,.0f}")
    axes.set_ylabel(f"µs {report.unit}")
    axes.grid(visible=True, color=_GREY, alpha=0.25, linewidth=0.8)
    # In the order in which the lines end, so that the eye finds them.
    titles = [title for _, title in sorted(ends, reverse=True)]
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(
        [handles[each] for each in titles], titles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False
    )


def _bars(axes: Any, report: Report) -> None:
    rows = sorted(
        ((each.median, report.title_of[cell.contestant]) for cell, each in report.results.items()), reverse=True
    )
    positions = range(len(rows))
    axes.barh(positions, [value for value, _ in rows], color=_HUES[2])
    axes.set_yticks(positions, [title for _, title in rows])
    axes.set_xscale("log")
    axes.set_xlabel(f"µs {report.unit}")
    for position, (value, _) in zip(positions, rows, strict=True):
        axes.annotate(f" {number_text(value)}", (value, position), va="center", color=_GREY)
    axes.margins(x=0.15)
