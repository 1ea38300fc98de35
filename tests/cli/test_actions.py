"""Options that can be repeated."""

import pytest

from astrogenspec.cli.commands import make_parser

COMMANDS = {
    "infer": ["infer", "table.fits", "-o", "out.fits"],
    "survey": ["survey", "catalogue", "out"],
    "legacy": ["dataset", "legacy", "table.fits", "--out", "out"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_repeated_surveys_are_joined(command):
    parser = make_parser()
    given = [*COMMANDS[command], "--survey", "legacy-dr10"]
    assert parser.parse_args(given).survey == "legacy-dr10"
    assert parser.parse_args([*given, "--survey", "galex"]).survey == "legacy-dr10,galex"
    # Nothing is kept from one command to the next.
    assert parser.parse_args([*given, "--survey", "2mass"]).survey == "legacy-dr10,2mass"
    default = parser.parse_args(COMMANDS[command]).survey
    assert default == ("legacy-dr10" if command == "legacy" else None)
