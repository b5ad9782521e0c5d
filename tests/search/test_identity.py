"""A study names each setting in which another search differs from it."""

from __future__ import annotations

import copy

import pytest
from made_searches import open_study

from ffem_jax.search.identity import describe_changes
from ffem_jax.search.study import SearchError

IDENTITY = {
    "arch": {"width_multiplier": 1.0, "stages": [{"channels": 16, "repeats": 1}, {"channels": 24, "repeats": 2}]},
    "recipe": {"epochs": 8, "name": "fast", "milestones": [4, 6]},
    "pretrain": None,
    "hydra.sweeper.params": {"arch.stem_stride": ["1", "2"]},
    "hydra.sweeper.objectives": ["accuracy", "bytes_float32"],
    "run.cap_mb": [10.0, "float32", False],
    "faces": "c0ffee",
}


def change(*path, to):
    changed = copy.deepcopy(IDENTITY)
    node = changed
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = to
    return changed


CASES = [
    (change("recipe", "epochs", to=9), "recipe.epochs (8 then, 9 now)"),
    (change("recipe", "milestones", to=[4, 7]), "recipe.milestones ([4, 6] then, [4, 7] now)"),
    (change("arch", "stages", 1, "channels", to=32), "arch.stages.1.channels (24 then, 32 now)"),
    (change("hydra.sweeper.params", "arch.stem_stride", to=["1"]), 'hydra.sweeper.params.arch.stem_stride (["1", "2"]'),
    (change("hydra.sweeper.objectives", to=["accuracy", "peak_activation_bytes"]), "hydra.sweeper.objectives ("),
    (change("pretrain", to={"name": "others", "seed": 0}), 'pretrain (nothing then, {"name": "others"'),
    (change("run.cap_mb", to=[5.0, "float32", False]), "run.cap_mb ([10.0"),
    (change("faces", to="decaf"), "other faces"),
    (change("arch", "stages", to=IDENTITY["arch"]["stages"][:1]), "arch.stages ("),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "named"), CASES)
def test_the_setting_is_named_and_no_other(tmp_path, changed, named):
    study = open_study(tmp_path)
    study.check_identity(IDENTITY)
    study.check_identity(IDENTITY)
    with pytest.raises(SearchError) as error:
        open_study(tmp_path).check_identity(changed)
    text = str(error.value)
    assert f"the study made was started with other settings: {named}" in text
    assert "; use those settings, or start another study with hydra.sweep.dir=DIR" in text
    assert "\n" not in text
    assert len(describe_changes(IDENTITY, changed)) == 1
    assert "c0ffee" not in text
    # It was refused and changed nothing.
    open_study(tmp_path).check_identity(IDENTITY)


def test_several_settings_are_all_named(tmp_path):
    changed = change("recipe", "epochs", to=9)
    changed["arch"]["width_multiplier"] = 0.5
    assert describe_changes(IDENTITY, changed) == [
        "arch.width_multiplier (1.0 then, 0.5 now)", "recipe.epochs (8 then, 9 now)",
    ]  # fmt: skip


def test_a_study_of_before_faces_were_written_down_goes_on(tmp_path):
    study = open_study(tmp_path)
    older = {name: value for name, value in IDENTITY.items() if name != "faces"}
    study.storage.set_study_user_attr(study.study_id, "identity", older)
    study.check_identity(IDENTITY)
    with pytest.raises(SearchError, match="other faces"):
        study.check_identity(change("faces", to="decaf"))
