"""A comparison for the terminal, in 80 columns."""

from agentgolf.duration import format_duration
from agentgolf.report.comparison import Arm, Comparison
from agentgolf.report.tables import DASH, console, interval, number, print_lines, safe, table


def print_comparison(found: Comparison) -> None:
    each = format_duration(found.budget_seconds) if found.budget_seconds else f"{found.trials_limit} trials"
    print_lines(
        [
            ("comparison", f"{found.name}  ({found.course}/{found.track}; {found.repeats} x {each} an arm)"),
            ("state", found.state),
        ]
    )
    console().print()
    columns = [("arm", "left"), ("gain on B", "right"), ("95%", "left"), ("repeats", "left")]
    rows = [
        [
            safe(arm.name),
            number(arm.gain_bpb, sign=True),
            interval(arm.gain_low, arm.gain_high),
            " ".join(number(run.final_gain_bpb, 3, sign=True) for run in arm.runs if run.state == "finished"),
        ]
        for arm in found.arms
    ]
    console().print(table(columns, rows))
    console().print()
    columns = [(title, "left" if title == "arm" else "right") for title in _WORK]
    console().print(table(columns, [_work(arm) for arm in found.arms]))
    console().print()
    for one in found.duels:
        said = f"{one.probability:.1%}" if one.probability is not None else "one repeat does not tell"
        console().print(f"P({safe(one.first)} beats {safe(one.second)}) = {said}", highlight=False)
    console().print(f"verdict: {safe(found.verdict)}")


_WORK = ("arm", "tried", "keep", "crash", "reject", "again", "ideas", "apart", "tokens", "$", "$/keep")


def _work(arm: Arm) -> list[str]:
    return [
        safe(arm.name),
        str(arm.candidates),
        *(f"{rate:.0%}" for rate in (arm.keep_rate, arm.crash_rate, arm.reject_rate, arm.duplicate_rate)),
        f"{arm.ideas:.1f}",
        number(arm.distance, 2),
        f"{arm.tokens:,}" if arm.tokens < 1_000_000 else f"{arm.tokens / 1e6:.1f}M",
        number(arm.cost_usd, 2),
        number(arm.cost_usd_per_keep, 2) if arm.cost_usd_per_keep is not None else DASH,
    ]
