"""``astrogenspec completion``: a script that lets bash or zsh complete the command line.

The script is generated from the parser, so it covers every command, option and choice, and runs
without the package.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["SHELLS", "add_completion", "completion_script"]

#: Supported shells.
SHELLS = ("bash", "zsh")
#: Arguments that take the name of a model or a file.
_MODELS = ("model", "properties_model", "name")
_SURVEY = "survey"
_EXPLANATION = """\
bash (add to ~/.bashrc):
  eval "$(astrogenspec completion bash)"
zsh (add to ~/.zshrc, after compinit):
  eval "$(astrogenspec completion zsh)"
"""
_SCRIPT = """\
# Completion of astrogenspec for {shell}, made by `astrogenspec completion {shell}`.
_astrogenspec() {{
    local cur={current} prev={previous} at="" word options="" arguments="" offer=""
    for word in {before}; do
        case "$at/$word" in
            {commands}) at="$at/$word" ;;
        esac
    done
    case "$at" in
{words}
    esac
    case "$at:$prev" in
{values}
        *)
            offer="$arguments"
            if [[ "$cur" == -* ]]; then offer="$options"; fi
            ;;
    esac
    {reply}
}}
{register}
"""
# Both shells complete file names if the script offers nothing.
_SHELLS = {
    "bash": {
        "current": '"${COMP_WORDS[COMP_CWORD]}"',
        "previous": '"${COMP_WORDS[COMP_CWORD-1]}"',
        "before": '"${COMP_WORDS[@]:1:COMP_CWORD-1}"',
        "reply": 'COMPREPLY=($(compgen -W "$offer" -- "$cur"))',
        "register": "complete -o default -F _astrogenspec astrogenspec",
    },
    "zsh": {
        "current": '"${words[CURRENT]}"',
        "previous": '"${words[CURRENT-1]}"',
        "before": '"${(@)words[2,CURRENT-1]}"',
        "reply": "compadd -- ${=offer} || _files",
        "register": "compdef _astrogenspec astrogenspec",
    },
}


def add_completion(
    commands: Any, common: argparse.ArgumentParser, whole: argparse.ArgumentParser
) -> None:
    """Register ``astrogenspec completion``.

    Parameters
    ----------
    commands : object
        Return value of ``add_subparsers``.
    common : `argparse.ArgumentParser`
        Options shared by all commands.
    whole : `argparse.ArgumentParser`
        The main parser, which the script completes.
    """
    parser = commands.add_parser(
        "completion",
        parents=[common],
        help="print a script that lets bash or zsh complete the command line",
        description="Print a script that completes commands, options, choices and the names of "
        "models.",
        epilog=_EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS, help="shell")

    def run(options: argparse.Namespace) -> int:
        from ..surveys import survey_names
        from ..weights import list_models

        models = [str(name) for name in list_models()["name"]]
        script = completion_script(whole, options.shell, models=models, surveys=survey_names())
        print(script, end="")
        return 0

    parser.set_defaults(run=run, parser=parser)


def completion_script(
    parser: argparse.ArgumentParser,
    shell: str,
    *,
    models: Sequence[str] = (),
    surveys: Sequence[str] = (),
) -> str:
    """Return the completion script of a parser.

    Parameters
    ----------
    parser : `argparse.ArgumentParser`
        Main parser.
    shell : {"bash", "zsh"}
        Shell.
    models, surveys : sequence of str
        Names offered for arguments that take a model or a survey.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If the shell is not supported.
    """
    if shell not in SHELLS:
        raise ValueError(f"shell is {shell!r}: it must be one of {', '.join(SHELLS)}.")
    names = {_SURVEY: surveys} | dict.fromkeys(_MODELS, models)
    paths, words, values = [], [], []
    for path, each in _commands(parser):
        paths.append(path)
        options = [name for action in each._actions for name in action.option_strings]
        arguments = [
            word
            for action in each._actions
            if not action.option_strings
            for word in _words(action, names)
        ]
        words.append(
            f'        "{path}") options="{" ".join(options)}" arguments="{" ".join(arguments)}" ;;'
        )
        for action in each._actions:
            if action.option_strings and action.nargs != 0:
                pattern = "|".join(f'"{path}:{name}"' for name in action.option_strings)
                offer = " ".join(_words(action, names))
                values.append(f'        {pattern}) offer="{offer}" ;;')
    return _SCRIPT.format(
        shell=shell,
        commands="|".join(f'"{path}"' for path in paths if path),
        words="\n".join(words),
        values="\n".join(values),
        **_SHELLS[shell],
    )


def _commands(
    parser: argparse.ArgumentParser, path: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Iterate over a parser and its subparsers as pairs such as (``/weights/list``, parser)."""
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from _commands(inner, f"{path}/{name}")


def _words(action: argparse.Action, names: Mapping[str, Sequence[str]]) -> list[str]:
    """List the allowed values of an argument; empty for a file or free text."""
    if action.choices is not None:
        return [str(choice) for choice in action.choices]
    return list(names.get(action.dest, ()))
