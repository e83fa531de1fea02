"""The report's plots, each as the text of an SVG element."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Scores = dict[str, Any]  # of one language or the mean: records, and a dictionary of metrics for each model

# A colour a model, the same in every plot (Okabe and Ito's, which colour-blind people tell apart).
COLOURS = {
    "zero_shot": "#999999",
    "no_teacher": "#e69f00",
    "pseudo_label": "#56b4e9",
    "distilled": "#0072b2",
    "gold": "#009e73",
    "gold_all": "#cc79a7",
}
INCHES_HIGH = 3.6


def svg(figure: Figure, name: str) -> str:
    """`name` is unique in the page: it keeps the ids of several figures apart, and equal input gives equal text."""
    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None}, bbox_inches="tight")
    return text.getvalue()[text.getvalue().index("<svg") :]


def new(width: float, height: float = INCHES_HIGH) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color="#dddddd")
    return figure, axes


def scale_of(metric: str) -> int:
    """What a metric is multiplied by to be shown: all but perplexity are shares, shown in percent."""
    return 1 if metric == "perplexity" else 100


def unit_of(metric: str) -> str:
    return "" if metric == "perplexity" else ", %"


def shown(value: float | None, metric: str) -> float:
    return float("nan") if value is None else scale_of(metric) * value


def grouped_bars(axes: Axes, names: Sequence[str], series: dict[str, list[float]], errors: dict[str, Any]) -> None:
    """A group of bars a name, a bar a model; errors[model] is [2, names], what lies below and above each bar's end."""
    width = 0.84 / len(series)
    for number, (model, heights) in enumerate(series.items()):
        places = np.arange(len(names)) + (number - (len(series) - 1) / 2) * width
        axes.bar(
            places,
            heights,
            width,
            label=model,
            color=COLOURS.get(model),
            yerr=errors.get(model),
            error_kw={"elinewidth": 0.8, "ecolor": "#333333"},
        )
    axes.set_xticks(np.arange(len(names)), names, rotation=45 if len(names) > 6 else 0)
    axes.legend(ncols=len(series), loc="upper center", bbox_to_anchor=(0.5, 1.15), frameon=False, fontsize="small")


def metric_bars(places: dict[str, Scores], models: Sequence[str], metric: str, title: str) -> str:
    """`places`: languages and the mean."""
    figure, axes = new(max(6.0, 0.14 * len(places) * (len(models) + 1)))
    series, errors = {}, {}
    for model in models:
        scores = [place.get(model, {}) for place in places.values()]
        series[model] = [shown(score.get(metric), metric) for score in scores]
        ends = [score.get("intervals", {}).get(metric) or [None, None] for score in scores]
        if any(None not in end for end in ends):
            low, high = (np.array([shown(end[side], metric) for end in ends]) for side in (0, 1))
            # An interval of few groups may leave its point outside: no negative lengths.
            errors[model] = np.nan_to_num(np.clip([series[model] - low, high - series[model]], 0, None))
    grouped_bars(axes, list(places), series, errors)
    axes.set_ylabel(f"{title}{unit_of(metric)}")
    return svg(figure, f"bars-{metric}")


def gain_bars(places: dict[str, Scores], baseline: str, metric: str, title: str) -> str:
    """What the distilled student has more than a baseline, by language, the largest gain first."""
    gains = {
        name: shown(scores["distilled"][metric], metric) - shown(scores[baseline][metric], metric)
        for name, scores in places.items()
        if "distilled" in scores
    }
    ordered = sorted(gains, key=lambda name: -gains[name])
    figure, axes = new(max(5.0, 0.4 * len(ordered)))
    colours = ["#333333" if name == "mean" else COLOURS["distilled"] for name in ordered]
    axes.bar(range(len(ordered)), [gains[name] for name in ordered], 0.7, color=colours)
    axes.axhline(0, color="#333333", linewidth=0.8)
    axes.set_xticks(range(len(ordered)), ordered, rotation=45 if len(ordered) > 6 else 0)
    axes.set_ylabel(f"{title}: distilled - {baseline}, points")
    return svg(figure, f"gain-{baseline}-{metric}")


def class_bars(mean: Scores, models: Sequence[str], labels: Sequence[str]) -> str:
    figure, axes = new(max(6.0, 0.14 * len(labels) * (len(models) + 1)))
    series = {
        model: [shown(mean[model]["classes"].get(label, {}).get("f1"), "f1") for label in labels] for model in models
    }
    grouped_bars(axes, labels, series, {})
    axes.set_ylabel("F1, mean over languages, %")
    return svg(figure, "classes")


def confusion_matrix(counts: npt.NDArray[np.int64], labels: Sequence[str]) -> str:
    """counts[gold, predicted]; colours are shares of the gold class."""
    side = max(4.0, 0.6 * len(labels))
    figure, axes = new(side, side)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.grid(visible=False)
    axes.set_xticks(range(len(labels)), labels, rotation=45)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("gold")
    if len(labels) <= 30:  # more would not be legible
        for (gold, predicted), count in np.ndenumerate(counts):
            colour = "white" if shares[gold, predicted] > 0.5 else "black"
            axes.text(predicted, gold, str(count), ha="center", va="center", color=colour, fontsize="small")
    return svg(figure, "confusion")


def latency_scatter(points: dict[str, tuple[float, float]], metric: str, title: str) -> str:
    """name -> (milliseconds, value of the metric)."""
    figure, axes = new(5.0)
    for name, (milliseconds, value) in points.items():
        place = (milliseconds, shown(value, metric))
        axes.scatter(*place, s=60, color=COLOURS["distilled" if name == "student" else "zero_shot"])
        axes.annotate(name, place, xytext=(8, 4), textcoords="offset points")
    axes.set_xscale("log")
    axes.margins(0.3)
    axes.set_xlabel("milliseconds for one text (median), logarithmic")
    axes.set_ylabel(f"{title}, mean over languages{unit_of(metric)}")
    return svg(figure, "latency")
