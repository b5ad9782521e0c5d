"""The axes of the figure: units, limits, ticks and the cap line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ffem_jax.analysis.question import FrontierQuestion
from ffem_jax.analysis.summary import NetworkSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def set_cost_limits(axes: Axes, costs: list[float], question: FrontierQuestion) -> None:
    """Set horizontal limits and ticks: logarithmic beyond a factor of 4, and including the cap if it is near."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = (min(costs), max(costs)) if costs else (question.cap_mb, question.cap_mb)
    wide = low > 0 and high / low > 4
    if question.against == "bytes" and low / 1.35 <= question.cap_mb <= high * (3 if wide else 1.35):
        low, high = min(low, question.cap_mb), max(high, question.cap_mb)
    if wide:
        pad = (high / low) ** 0.06
        axes.set_xscale("log")
        axes.set_xlim(low / pad, high * pad)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        pad = 0.08 * (high - low) or 0.08 * high or 1.0
        axes.set_xlim(low - pad, high + pad)


def set_rate_limits(axes: Axes, trained: Sequence[NetworkSummary]) -> None:
    """Set vertical limits: all intervals with room for names above; round ticks within 0 to 100 %."""
    from matplotlib.ticker import MaxNLocator

    if not trained:
        return
    bottom = 100 * min(get_interval(s)[0] for s in trained)
    top = 100 * max(get_interval(s)[1] for s in trained)
    span = max(top - bottom, 1.0)
    chance = next((100 * s.chance for s in trained if s.chance is not None), None)
    if chance is not None and bottom - 0.5 * span <= chance < bottom:  # near enough to compare with
        bottom, span = chance, max(top - chance, 1.0)
    elif chance is not None and top < chance <= top + 0.5 * span:  # for an error rate it is above
        top, span = chance, max(chance - bottom, 1.0)
    teacher = _find_teacher(trained)
    if teacher is not None and top < 100 * teacher:
        top, span = 100 * teacher, 100 * teacher - bottom
    axes.set_ylim(bottom - 0.08 * span, top + 0.12 * span)
    axes.yaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10]))
    low, high = axes.get_ylim()
    axes.set_yticks([tick for tick in axes.get_yticks() if max(0.0, low) <= tick <= min(100.0, high)])


def draw_cap(axes: Axes, below: Axes, question: FrontierQuestion) -> float | None:
    """Draw the cap line and its name; return its position in points, None if it is outside the figure."""
    if question.against != "bytes":
        return None
    left, right = axes.get_xlim()
    text = f"cap {question.cap_mb:g} MB"
    if not left < question.cap_mb < right:
        beyond = question.cap_mb >= right
        axes.text(
            0.995 if beyond else 0.005,
            1.012,
            f"{text}: further right \N{RIGHTWARDS ARROW}" if beyond else f"\N{LEFTWARDS ARROW} {text}: further left",
            transform=axes.transAxes,
            ha="right" if beyond else "left",
            color="#202020",
            size=8.5,
        )
        return None
    for part in {axes, below}:
        part.axvline(question.cap_mb, color="#202020", linewidth=1.4, linestyle=(0, (6, 3)), zorder=1.5)
    place = axes.get_xaxis_transform()
    axes.text(question.cap_mb, 1.012, text, transform=place, ha="center", color="#202020", size=8.5, weight="bold")
    return float(axes.transData.transform((question.cap_mb, 0))[0])


def draw_chance(axes: Axes, trained: Sequence[NetworkSummary], size: float = 8.5) -> None:
    """Draw the levels of chance and of a shared teacher, with names, if within the limits of the figure."""
    chance = next((s.chance for s in trained if s.chance is not None), None)
    low, high = axes.get_ylim()
    for name, rate in (("chance", chance), ("the teacher, which saw other data,", _find_teacher(trained))):
        if rate is None or not low < 100 * rate < high:
            continue
        axes.axhline(100 * rate, color="#606060", linewidth=0.9, linestyle=(0, (1, 3)), zorder=1.4)
        place, text = axes.get_yaxis_transform(), f"{name} {100 * rate:.1f} %"
        # On the left, because the cap line is on the right and very cheap networks are seldom near chance.
        axes.text(0.005, 100 * rate, text, transform=place, ha="left", va="bottom", color="#606060", size=size)


def _find_teacher(trained: Sequence[NetworkSummary]) -> float | None:
    """Return the teacher's accuracy if all networks share it."""
    rates = {s.teacher for s in trained}
    return rates.pop() if len(rates) == 1 else None


def get_interval(summary: NetworkSummary) -> tuple[float, float]:
    """Return the 95 % interval, or the accuracy itself if the summary has none."""
    rate = summary.accuracy or 0.0
    low = rate if summary.accuracy_low is None else summary.accuracy_low
    return low, rate if summary.accuracy_high is None else summary.accuracy_high
