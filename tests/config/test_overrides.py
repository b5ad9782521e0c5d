"""An override as a shell hands it over means what was typed, for every name that a folder or a network may have."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from ffem_jax.config.compose import Composer, ConfigError, open_composer, to_specs, write_places
from ffem_jax.config.overrides import advise_quotes, parse_line, quote_value, settle_override, write_value
from ffem_jax.config.schema import ApplicationSpec

SIGNS = "ü李é\u0301(),=&#{}[]$;%!*?~\\\"'`|<>:@+- .\taZ07e_\n"
NAMES = st.one_of(
    st.text(st.sampled_from(SIGNS), min_size=1, max_size=10),
    st.text(st.characters(exclude_characters="\0/"), min_size=1, max_size=10),
    st.sampled_from(
        ["null", "true", "1e3", "1_000", "007", "${oc.env:HOME}", "${", "a${b}", "\\${x}", "choice(a,b)", "\udce9"]
    ),
).filter(lambda name: name not in (".", ".."))


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with open_composer() as opened:
        yield opened


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def is_quoted(text: str) -> bool:
    """Whether Hydra takes the text for one quoted value: then the quotes are not part of it."""
    return settle_override(f"data.root={text}", ApplicationSpec) == f"data.root={text}" and text.strip()[:1] in "'\""


def read_root(composer: Composer, *overrides: str) -> str:
    composer.parse(overrides)
    return to_specs(composer.compose(overrides))[0].data.root


def read_fast(override: str) -> str:
    """What the value of `override` comes to, without a config around it."""
    parsed = parse_line(settle_override(override, ApplicationSpec))
    assert parsed is not None
    return OmegaConf.create({"value": parsed.value()}).value


@given(name=NAMES)
@example(name="a,b")
@example(name="trailing\\")
@example(name=" space ")
@example(name="x'")
@example(name=" ''")
def test_a_folder_that_is_there_is_meant_whatever_its_name(folder: Path, name: str) -> None:
    path = folder / name
    try:
        path.mkdir()
    except (OSError, UnicodeEncodeError):
        return  # no name for a folder on this machine
    before = Path.cwd()
    try:
        assert read_fast(f"data.root={path}") == str(path)
        os.chdir(folder)
        if not is_quoted(name):
            assert read_fast(f"data.root={name}") == name
    finally:
        os.chdir(before)
        path.rmdir()


@given(name=NAMES)
def test_what_is_quoted_means_itself_and_stays_as_it_is(name: str) -> None:
    for written in (quote_value(name), write_value(name)):
        override = f"arch.name={written}"
        assert settle_override(override, ApplicationSpec) == override
        assert read_fast(override) == name


@given(line=st.one_of(NAMES, NAMES.map(lambda name: f"data.root={name}"), NAMES.map(lambda name: f"arch={name}")))
def test_a_line_is_settled_once_for_all_or_refused_in_one_line(line: str) -> None:
    try:
        settled = settle_override(line, ApplicationSpec)
    except ConfigError as error:
        told = str(error)
    else:
        assert settle_override(settled, ApplicationSpec) == settled
        told = ""
        assert parse_line(settled) is not None
    assert not any(word in told for word in ("Lexer", "mismatched", "extraneous"))


@pytest.mark.parametrize("name", ["Müller 李 (1)", "it's, a=b & {x} [y] #2", "${oc.env:HOME}", "\\${", "-\\", "1e3"])
def test_composed_and_composed_again_it_is_the_same_folder(composer: Composer, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.mkdir()
    assert read_root(composer, f"data.root={path}") == str(path)
    # As a job gets it, in a process of its own.
    written = composer.write_out_rows([f"data.root={path}"])
    assert composer.write_out_rows(written) == written
    (place,) = write_places(to_specs(composer.compose(written))[0])
    assert read_root(composer, place) == str(path)


@pytest.mark.parametrize(
    "name", ["Müller", "faces (1)", "it's", "a,b", "a=b", "r&d", "set#2", "[x]", "{x}", "1e3", "a;b%!*?"]
)
def test_a_place_is_one_value_whether_it_is_there_or_not(composer: Composer, name: str) -> None:
    keys = ("hydra.run.dir", "hydra.sweep.dir", "run.records", "data.cache_dir")
    config = composer.compose([f"{key}=/nowhere/{name}" for key in keys])
    places = (config.hydra.run.dir, config.hydra.sweep.dir, config.run.records, config.data.cache_dir)
    assert set(places) == {f"/nowhere/{name}"}


@pytest.mark.parametrize(
    "name", ["net[/v2]", "it's", "a=b", "ü 李", "1e3", "true", "[a,b]", "{a:1}", "f(x)", ":smile:", "a`b|c"]
)
def test_a_network_may_have_any_name(composer: Composer, name: str) -> None:
    assert to_specs(composer.compose([f"arch.name={name}"]))[0].arch.name == name


def test_hydras_own_grammar_goes_on_working(
    composer: Composer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FACES", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert read_root(composer, "data.root=${oc.env:FACES}/x") == f"{tmp_path}/x"
    assert read_root(composer, "data.root=${oc.env:FACES}/x (1)") == f"{tmp_path}/x (1)"
    assert read_root(composer, "data.root='a, b'") == f"{tmp_path}/a, b"
    assert read_root(composer, 'data.root="it\'s"') == f"{tmp_path}/it's"
    assert read_root(composer, "data.root=~/faces") == str(Path.home() / "faces")
    assert read_root(composer, "data.root=") == ""
    assert to_specs(composer.compose(["launcher.partition=null"]))[1].records == ""
    assert composer.compose(["launcher.partition=null"]).launcher.partition is None


def test_a_comma_is_a_sweep_unless_the_folder_is_there(
    composer: Composer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (override,) = composer.parse(["data.root=2020,1e3"])
    assert list(override.sweep_string_iterator()) == ["2020", "'1e3'"]
    for name in ("a (1)", "b"):
        (tmp_path / name).mkdir()
    (override,) = composer.parse(["data.root=a (1),b"])
    assert list(override.sweep_string_iterator()) == ["'a (1)'", "'b'"]
    (tmp_path / "2020,1e3").mkdir()
    assert read_root(composer, "data.root=2020,1e3") == str(tmp_path / "2020,1e3")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("seed=ü", """quote it: "seed='ü'\""""),
        (
            "data.root=a,b",
            "data.root=a,b has several values; add -m to train them all, or write a list as key=[a,b]; "
            """to give it as one text, quote it: "data.root='a,b'\"""",
        ),
        ("ü=3", "'ü=3' cannot be read as key=value"),
        ("=3", "'=3' cannot be read as key=value"),
        ("arch=Müller", "arch=Müller is not known; choose one of: ffem"),
        ("arch=ffem,Müller", "arch=Müller is not known"),
        ("recipe.loss=[x]", "recipe.loss='[x]' is not known"),
        ("attention=null", "must be a string"),
        ("hydra.run.dir=out/${nowhere}", "hydra.run.dir: Interpolation key 'nowhere' not found"),
    ],
)
def test_what_cannot_be_read_is_told_in_the_users_words(composer: Composer, override: str, told: str) -> None:
    with pytest.raises(ValueError, match=".") as caught:
        composer.parse([override])
        to_specs(composer.compose([override]))
    assert told in str(caught.value)
    assert not any(word in str(caught.value) for word in ("Lexer", "mismatched", "extraneous", "\n"))


def test_the_advice_can_be_typed_into_a_shell() -> None:
    import shlex

    for value in ("ü", "a b", "it's", 'say "x"', "$HOME", "a`b", "back\\slash", "bang!"):
        advice = advise_quotes(f"seed={value}").removeprefix("to give it as one text, quote it: ")
        assert shlex.split(advice) == [f"seed={quote_value(value)}"]


def test_the_folders_of_faces_are_absolute_and_jobs_keep_the_names_they_had(
    composer: Composer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["data=folder", "data.root=faces", "pretrain=lfw_rest", "pretrain.data.root=../first"]
    config = composer.compose(words)
    trial, _ = to_specs(config)
    assert (trial.data.root, trial.pretrain.data.root) == (f"{tmp_path}/faces", f"{tmp_path}/../first")
    typed, _ = to_specs(config, as_typed=True)
    assert (typed.data.root, typed.pretrain.data.root) == ("faces", "../first")
    places = write_places(typed)
    monkeypatch.chdir("/")
    elsewhere, _ = to_specs(composer.compose([*words, *places]))
    assert elsewhere == trial
