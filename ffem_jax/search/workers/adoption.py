"""Adds recorded networks to a study that lacks them, so that they are not trained again."""

from __future__ import annotations

from ffem_jax.search.candidates import CandidateMaker, price_recorded
from ffem_jax.search.plan import SearchPlan
from ffem_jax.search.samplers import freeze
from ffem_jax.search.study import SearchStudy
from ffem_jax.specs.trial import to_plain


def adopt_recorded(plan: SearchPlan, maker: CandidateMaker, study: SearchStudy) -> int:
    """Add to the study the networks that only the records hold: its journal was lost, or another machine trained them.

    They count towards n_trials. With successive halving none is added, because it compares networks at epochs that the
    record of a finished trial does not contain.

    Returns:
        How many networks were added.
    """
    from ffem_jax.runs.trial import compute_key

    if plan.rungs:
        return 0
    done = {record.trial_key: record for record in plan.read_records() if record.status == "done"}
    known, adopted, base = study.read_ledger().points, 0, to_plain(plan.base)
    for record in done.values():
        point = plan.space.read_point(record.spec, base)
        if point is None or freeze(point) in known:
            continue
        candidate = maker.make(point)
        if candidate.trial is None or candidate.run is None:
            continue
        # The keys include the faces; every seed of the network must be recorded.
        keys = [compute_key(trial) for trial in candidate.trial.with_seeds(candidate.run.seeds)]
        if all(key in done for key in keys):
            records = [done[key] for key in keys]
            adopted += study.adopt(price_recorded(candidate, records[0]), records)
    return adopted
