"""Command lines of 0.4: they work until `REMOVAL`; one line on stderr shows the new form."""

import re
import shlex
import sys
from collections.abc import Collection
from typing import Any

from typer.core import TyperCommand

from gradlab.version import REMOVAL

__all__ = ["Command", "modern", "split_names"]

_SIZES = {"--N": 0, "--C": 1}
# Numbers of variables and of classes that `time` swept by default.
_SWEPT = {"--variables": "2,8,32,128,512", "--classes": "2,4,16,64,256"}
_OLD: dict[str, set[str]] = {
    "compare": {*_SIZES},
    "verify": {*_SIZES},
    "recommend": {"--estimator", *_SIZES},
    "time": {"--estimator", *_SWEPT},
    "vae": {"--estimator", "--compare"},
    "network": {"--estimator", "--compare"},
    "list": {"--seed"},
}


class Command(TyperCommand):
    """A command that also reads its old form."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Read the arguments, those of an old form as the new one."""
        flags = {"-h", "--help"}
        for param in self.params:
            if getattr(param, "is_flag", False):
                flags |= {*param.opts, *param.secondary_opts}
        words, found = modern(str(ctx.info_name), args, flags)
        if found:
            new = shlex.join([*ctx.command_path.split(), *words])
            print(
                f"gradlab: {', '.join(found)}: this old form goes in {REMOVAL}; write: {new}",
                file=sys.stderr,
            )
        return super().parse_args(ctx, words)


def modern(
    command: str, words: list[str], flags: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """Return the words of an old command line in the new form, and what in them was old.

    Args:
        command: The name of the command, such as "recommend" or "vae".
        words: What follows the name on the command line.
        flags: Its options without a value.

    Returns:
        The new words, and the old options and arguments found, none if the line has the new form.
    """
    old = _OLD.get(command, set())
    kept: list[str] = []
    positional: list[int] = []
    found: dict[str, str] = {}
    estimators: list[str] = []
    left = iter(words)
    for word in left:
        if word == "--":
            kept += [word, *left]
        elif not word.startswith("-"):
            positional.append(len(kept))
            kept.append(word)
        else:
            name, equals, value = word.partition("=")
            taken = [word]
            if not equals and name not in flags:
                value = next(left, "")
                taken.append(value)
            if (command, name, value) == ("verify", "--method", "draws"):
                found["--method draws"] = ""
                kept += ["--method", "monte-carlo"]
            elif name in old:
                found[name] = value
                estimators += [value] if name == "--estimator" else []
            else:
                kept += taken
    if command == "recommend" and not {"--loss", "--problem"} & set(kept):
        first = next((i for i in positional if ".py:" in kept[i]), None)
        if first is not None:
            found[kept[first]] = ""
            kept[first : first + 1] = ["--loss", kept[first]]
    if "--compare" in found:
        estimators = split_names(found["--compare"])
    if _SIZES.keys() & found.keys():
        kept += ["--size", f"{found.get('--N', '?')}x{found.get('--C', '?')}"]
    if _SWEPT.keys() & found.keys():
        kept += ["--size", _crossed(*(found.get(name, _SWEPT[name]) for name in _SWEPT))]
    return [*estimators, *kept] if found else words, list(found)


def _crossed(variables: str, classes: str) -> str:
    """Return the sizes NxC that two lists mean: each at the middle entry of the other one."""
    n, c = (
        sorted(set(text.split(",")), key=lambda part: (len(part), part))
        for text in (variables, classes)
    )
    middle = n[len(n) // 2], c[len(c) // 2]
    sizes = [f"{middle[0]}x{one}" for one in c] + [f"{one}x{middle[1]}" for one in n]
    return ",".join(dict.fromkeys(sizes))


def split_names(texts: str) -> list[str]:
    """Return the texts between the commas outside parentheses, each once."""
    return list(dict.fromkeys(text.strip() for text in re.split(r",(?![^(]*\))", texts)))
