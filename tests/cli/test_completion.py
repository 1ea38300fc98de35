"""Completion of the command line: the scripts run in their shells and cover the parser."""

import argparse
import re
import shutil
import subprocess

import pytest

from astrogenspec.cli.commands import main, make_parser
from astrogenspec.cli.completion import SHELLS, completion_script

# Stand-ins for the completion system of zsh, which only an interactive shell has.
CALL = {
    "bash": 'COMP_WORDS=({words}); COMP_CWORD={last}; _astrogenspec; printf "%s\\n" '
    '"${{COMPREPLY[@]}}"',
    "zsh": 'words=({words}); CURRENT={current}; cur="{cur}"; _astrogenspec',
}
BEFORE_ZSH = """
compdef() { : }
_files() { print -r -- FILES }
compadd() {
    local word found=1
    for word in "${@[2,-1]}"; do
        [[ "$word" == "$cur"* ]] && { print -r -- "$word"; found=0 }
    done
    return $found
}
"""


@pytest.fixture(params=SHELLS)
def complete(request):
    """Complete a command line, of which the last word is incomplete; give what is on offer."""
    shell = request.param
    if shell == "zsh" and shutil.which(shell) is None:
        pytest.skip("zsh is not installed; what its script holds is tested without it below")
    script = completion_script(
        make_parser(), shell, models=["one-model", "other-model"], surveys=["des", "lsst"]
    )

    def run(*words):
        quoted = " ".join(f"'{word}'" for word in ("astrogenspec", *words))
        call = CALL[shell].format(
            words=quoted, last=len(words), current=len(words) + 1, cur=words[-1]
        )
        before = BEFORE_ZSH if shell == "zsh" else ""
        done = subprocess.run(
            [shell, "-s"],
            input=f"{before}\n{script}\n{call}\n",
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return {line for line in done.stdout.splitlines() if line not in ("", "FILES")}

    return run


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["inf"], {"infer"}),
        (["weights", ""], {"list", "show", "fetch"}),
        (["weights", "fetch", "o"], {"one-model", "other-model"}),
        (["infer", "a.fits", "--on"], {"--on-error"}),
        (["infer", "a.fits", "--on-error", ""], {"raise", "flag"}),
        (["infer", "--model", "one"], {"one-model"}),
        (["infer", "a.fits", "--survey", "d"], {"des"}),
        (["train", "properties", "--survey", ""], {"des", "lsst"}),
        (["spectrum", "weights", "--sel"], {"--select"}),
        (["train", "spectra", "--st"], {"--steps"}),
        (["completion", ""], set(SHELLS)),
        # Files: nothing of ours is on offer.
        (["infer", ""], set()),
        (["infer", "a.fits", "-o", ""], set()),
    ],
)
def test_words_are_completed(complete, words, offered):
    assert complete(*words) == offered


def test_every_command_and_option_is_completed(complete):
    commands = complete("")
    assert {"infer", "spectrum", "weights", "simulate", "train", "evaluate"} <= commands
    assert {"--output", "--draws", "--quiet"} <= complete("spectrum", "-")


@pytest.mark.parametrize("shell", SHELLS)
def test_script_contains_every_command_and_option(shell):
    script = completion_script(make_parser(), shell)
    parsers, words = [make_parser()], set()
    while parsers:
        for action in parsers.pop()._actions:
            words |= {option for option in action.option_strings if option.startswith("--")}
            if isinstance(action, argparse._SubParsersAction):
                words |= set(action.choices)
                parsers += action.choices.values()
    assert len(words) > 40
    assert words <= set(re.findall(r"[\w-]+", script))


@pytest.mark.parametrize("shell", SHELLS)
def test_command_prints_script(capsys, shell):
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"# Completion of astrogenspec for {shell}")
    assert "astrogenspec-properties" in out
    assert "legacy-dr10" in out


def test_help_explains_installation(capsys):
    with pytest.raises(SystemExit):
        main(["completion", "--help"])
    assert 'eval "$(astrogenspec completion bash)"' in capsys.readouterr().out


def test_unknown_shell_is_refused():
    with pytest.raises(ValueError, match="shell is 'fish': it must be one of bash, zsh"):
        completion_script(make_parser(), "fish")
