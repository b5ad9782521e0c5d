"""What a network costs: each cost declared once, for tables, figures, the page, the search and its limits. No JAX.

To add one: its field in `TrialRecord` (and, if it is known before training, in `cost.Cost.to_dict`), its axis here.
"""

from __future__ import annotations

from dataclasses import dataclass

from ffem_jax.specs.trial import PRECISIONS

BYTES_PER_MB = 1e6


@dataclass(frozen=True)
class CostAxis:
    """A cost that accuracy is drawn against and that a search may lower.

    Args:
        name: as `ffem frontier --against` takes it.
        field: of `TrialRecord`; `{precision}` where there is one field per precision.
        title: on a switch. noun: in a heading, as in "Accuracy against parameters".
        unit: what a value is given in; scale: how much of the field's own unit that is; digits: shown after the point.
        axis: the label of a figure's axis; short: the same for a column of print; head: of a table's column. All three
            may hold `{precision}`.
        key_unit: above a column of values that is short of room.
        measured_by: the command that fills the field after training; empty where the cost is known before.
    """

    name: str
    field: str
    title: str
    noun: str
    unit: str
    scale: float
    digits: int
    axis: str
    short: str
    head: str
    key_unit: str
    measured_by: str = ""

    @property
    def known_before_training(self) -> bool:
        """Whether the network alone tells it, so that a limit can refuse the network untrained."""
        return not self.measured_by

    @property
    def by_precision(self) -> bool:
        """Whether it depends on the precision that the network is deployed in."""
        return "{precision}" in self.field

    def name_field(self, precision: str) -> str:
        """The record's field at `precision`, one of PRECISIONS."""
        return self.field.format(precision=precision)

    def format(self, value: float) -> str:
        """A value of the field with its unit, such as `2.18 MB`."""
        return f"{value / self.scale:.{self.digits}f} {self.unit}"


COST_AXES: dict[str, CostAxis] = {
    axis.name: axis
    for axis in (
        CostAxis(
            name="bytes", field="bytes_{precision}", title="Bytes", noun="bytes",
            unit="MB", scale=BYTES_PER_MB, digits=2,
            axis="MB, {precision}, as deployed", short="size as deployed in {precision} (MB)",
            head="MB {precision}", key_unit="MB",
        ),
        CostAxis(
            name="params", field="params", title="Parameters", noun="parameters",
            unit="M parameters", scale=1e6, digits=2,
            axis="million parameters", short="parameters (million)", head="params", key_unit="million",
        ),
        CostAxis(
            name="macs", field="macs", title="MACs", noun="MACs",
            unit="M MACs", scale=1e6, digits=1,
            axis="million MACs per image", short="MACs (million)", head="M MACs", key_unit="million",
        ),
        CostAxis(
            name="peak_activation_bytes", field="peak_activation_bytes", title="Peak memory",
            noun="peak activation memory",
            unit="MB of activations", scale=BYTES_PER_MB, digits=2,
            axis="MB of activations at the peak, float32, one image", short="peak activation memory (MB)",
            head="peak MB", key_unit="MB",
        ),
        CostAxis(
            name="latency_ms_wasm", field="latency_ms_wasm", title="Latency", noun="milliseconds in wasm",
            unit="ms", scale=1.0, digits=2,
            axis="ms per image, measured in TensorFlow.js' wasm backend, one thread", short="milliseconds in wasm",
            head="ms wasm", key_unit="ms", measured_by="ffem latency",
        ),
    )
}  # fmt: skip

# Every field of a record that holds a cost, and its axis: what a search may lower.
COST_FIELDS: dict[str, CostAxis] = {
    axis.name_field(precision): axis for axis in COST_AXES.values() for precision in PRECISIONS
}
MEASURED_FIELDS = tuple(name for name, axis in COST_FIELDS.items() if not axis.known_before_training)


def format_cost(field: str, value: float) -> str:
    """The cost in a record's `field` with its unit; a precision other than float32 is named."""
    axis = COST_FIELDS[field]
    precision = field.rpartition("_")[2]
    return axis.format(value) + (f" ({precision})" if axis.by_precision and precision != PRECISIONS[0] else "")
