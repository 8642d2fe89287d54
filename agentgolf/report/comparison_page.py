"""A comparison as one HTML page that needs nothing else: the curves, the table, what they mean."""

import html
from collections.abc import Callable
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from agentgolf.report.comparison import Arm, Comparison, Point

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Told apart also by those who see few colours (Okabe and Ito 2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
AXES: tuple[tuple[str, Callable[[Point], float]], ...] = (
    ("budget spent, minutes", lambda point: point.spent_seconds / 60),
    ("model tokens", lambda point: point.tokens),
    ("model cost, US dollars", lambda point: point.cost_usd),
)


def comparison_page(found: Comparison) -> str:
    """The whole page. Names of arms and runs are escaped; nothing of a candidate's is shown."""
    from plotly.offline import get_plotlyjs

    used = [axis for axis in AXES if any(axis[1](run.points[-1]) > 0 for arm in found.arms for run in arm.runs)]
    environment = Environment(
        loader=PackageLoader("agentgolf.report"), undefined=StrictUndefined, autoescape=True, trim_blocks=True
    )
    return environment.get_template("comparison.html").render(
        found=found,
        colours=COLOURS,
        script=get_plotlyjs(),
        figures=[_curves(found, title, value) for title, value in used] + [_finals(found)],
    )


def _curves(found: Comparison, title: str, value: Callable[[Point], float]) -> str:
    import plotly.graph_objects as go

    figure = go.Figure()
    for index, arm in enumerate(found.arms):
        for run in arm.runs:
            figure.add_trace(
                go.Scatter(
                    x=[value(point) for point in run.points],
                    y=[point.gain_bpb for point in run.points],
                    line={"shape": "hv", "color": COLOURS[index % len(COLOURS)], "width": 1.8},
                    name=html.escape(arm.name),
                    legendgroup=arm.name,
                    showlegend=run is arm.runs[0],
                    hovertemplate=f"{html.escape(run.run)}<br>%{{x:,.4g}}: %{{y:+.4f}} bpb<extra></extra>",
                    mode="lines",
                )
            )
    figure.update_layout(xaxis_title=title, yaxis_title="gain on A, bpb")
    return _drawn(figure, 380)


def _finals(found: Comparison) -> str:
    import plotly.graph_objects as go

    figure = go.Figure()
    for index, arm in enumerate(found.arms):
        colour = COLOURS[index % len(COLOURS)]
        figure.add_trace(
            go.Scatter(
                x=[arm.gain_bpb],
                y=[html.escape(arm.name)],
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [arm.gain_high - arm.gain_bpb],
                    "arrayminus": [arm.gain_bpb - arm.gain_low],
                },
                marker={"color": colour, "size": 11},
                mode="markers",
                showlegend=False,
            )
        )
        figure.add_trace(_repeats(arm, colour))
    figure.update_layout(xaxis_title="final gain on held-out B, bpb: mean with its 95% interval, and each repeat")
    figure.update_yaxes(autorange="reversed")
    return _drawn(figure, 110 + 40 * len(found.arms))


def _repeats(arm: Arm, colour: str) -> "go.Scatter":
    import plotly.graph_objects as go

    done = [run for run in arm.runs if run.state == "finished"]
    return go.Scatter(
        x=[run.final_gain_bpb for run in done],
        y=[html.escape(arm.name)] * len(done),
        text=[html.escape(run.run) for run in done],
        marker={"color": colour, "size": 7, "symbol": "line-ns-open"},
        mode="markers",
        showlegend=False,
    )


def _drawn(figure: "go.Figure", height: int) -> str:
    figure.update_layout(
        template="plotly_white", height=height, margin={"l": 70, "r": 20, "t": 20, "b": 50}, font={"size": 13}
    )
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False}))
