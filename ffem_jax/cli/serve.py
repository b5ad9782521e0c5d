"""`ffem serve`: the recognition server; `ffem serve keys` and `ffem serve people` manage its database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ffem_jax.cli.server_options import add_database_option, check_installed, find_database
from ffem_jax.cli.terminal import DONE, Parser, UsageError, say

if TYPE_CHECKING:
    from ffem_jax.serve.served_model import ServedModel
    from ffem_jax.serve.thresholds import Threshold

DEFAULT_RATE = "120/minute"
ACTIONS_HELP = (
    "ffem serve keys add|list|revoke manages the API keys, ffem serve people list|delete the enrolled people;\n"
    "see ffem serve keys --help and ffem serve people --help."
)


def run(words: Sequence[str]) -> int:
    """Serve until stopped, or manage keys or people."""
    if words[:1] == ["keys"]:
        from ffem_jax.cli.serve_keys import run_keys

        return run_keys(words[1:])
    if words[:1] == ["people"]:
        from ffem_jax.cli.serve_people import run_people

        return run_people(words[1:])
    options = _make_parser().parse_args(words)
    check_installed()

    from ffem_jax.serve.app import make_app
    from ffem_jax.serve.database import open_database
    from ffem_jax.serve.gallery import Gallery
    from ffem_jax.serve.keys import list_keys
    from ffem_jax.serve.listening import is_loopback, listen
    from ffem_jax.serve.request_log import set_up_logging
    from ffem_jax.serve.served_model import load_served_model

    model = load_served_model(options.model)
    threshold = choose_threshold(options.calibration, options.false_accept_rate, options.threshold, model)
    engine = open_database(find_database(options.database))
    gallery = Gallery(engine, model.model_id, model.length)
    app = make_app(
        model,
        gallery,
        threshold,
        false_accept_rate=None if options.calibration is None else options.false_accept_rate,
        rate=options.rate,
        allowed_origins=options.allow_origin,
    )
    people, vectors = gallery.count()
    shortage = threshold.find_shortage(vectors)
    if shortage:
        say(f"ffem: warning: {shortage}; the threshold is the largest that the calibration supports")
    if not any(not key.revoked_at for key in list_keys(engine)):
        say("ffem: warning: there is no API key yet; create one with ffem serve keys add --scopes enrol,match")
    if not is_loopback(options.host):
        say(f"ffem: warning: {options.host} is reachable from outside, without TLS: put an HTTPS proxy in front of it")

    def announce(address: str) -> None:
        set_up_logging()
        facts = {"address": address, "model_id": model.model_id, "people": people, "vectors": vectors}
        facts["threshold"] = threshold.at(vectors)
        line = json.dumps(facts) if options.json else f"{address} serves model {model.model_id}: {people} people"
        print(line, flush=True)

    listen(app, options.host, options.port, announce)
    return DONE


def _make_parser() -> Parser:
    parser = Parser(
        "serve", "Run the recognition server: vectors in, names out; it accepts no images.", epilog=ACTIONS_HELP
    )
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="export.json",
        help="the output of ffem export, which gives the model's id and vector length",
    )
    add_database_option(parser)
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="distances of people new to the network, by ffem embed --calibrate",
    )
    parser.add_argument(
        "--false-accept-rate", type=float, default=0.01, metavar="RATE",
        help="share of strangers, 0 to 1, that may be accepted as an enrolled person (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="DISTANCE",
        help="accept up to this distance, 0 to 1, instead of a calibration",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 picks a free port (default %(default)s)")
    parser.add_argument("--rate", default=DEFAULT_RATE, help="request limit per key (default %(default)s)")
    parser.add_argument(
        "--allow-origin", action="append", default=[], metavar="ORIGIN",
        help="an origin that may send requests from a browser, as https://example.com, or null for a file; repeatable",
    )  # fmt: skip
    return parser


def choose_threshold(
    calibration: Path | None, false_accept_rate: float, sigma: float | None, model: ServedModel
) -> Threshold:
    """Return the threshold from the options. Raises UsageError if they give none, two or an invalid one."""
    from ffem_jax.serve.thresholds import CalibratedThreshold, FixedThreshold, load_calibration

    if (calibration is None) == (sigma is None):
        raise UsageError(
            "give --calibration FILE, which ffem embed FOLDER --trial DIR --calibrate FILE makes from people new to "
            "the network, or --threshold DISTANCE, and not both"
        )
    if calibration is not None:
        if not 0 < false_accept_rate <= 1:
            raise UsageError(f"--false-accept-rate {false_accept_rate} must be above 0 and at most 1")
        return CalibratedThreshold(load_calibration(calibration, model.model_id), false_accept_rate)
    assert sigma is not None
    if not 0 <= sigma <= 1:
        raise UsageError(f"--threshold {sigma} must be between 0 and 1: half the distance of unit vectors")
    return FixedThreshold(sigma)
