"""
Completion: what may stand next on a command line, and how shells ask for it.

The scripts for the shells know nothing about redock: with each key they ask the
program, as ``redock --complete WORD...``, so that they never have to be made
anew. An answer is a line a candidate, with a description behind a tab.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys

from redock.errors import RedockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["SCRIPTS", "answer", "find_candidates"]

#: Seconds after which there is no answer: whoever presses a key waits for it.
PATIENCE = 1.0
#: The line that asks for the names of files, too.
FILES = ":files"

#: What the values of arguments are, by the name that help has for them.
MACHINES, IMAGES, COMMITS = "machines", "images", "commits"
KINDS: dict[str, tuple[str, ...]] = {
    "NAME": (MACHINES,),
    "OLD": (MACHINES,),
    "REV": (COMMITS,),
    "SRC": (MACHINES, FILES),
    "DST": (MACHINES, FILES),
}
#: What the names of arguments contain that are files.
FILE_WORDS = ("FILE", "PATH", "SCRIPT", "DIR")
#: Where a name is not that of a machine that exists.
EXCEPTIONS: dict[str, tuple[str, ...]] = {
    "start": (MACHINES, IMAGES),
    "delete": (IMAGES,),
}

BASH = """\
# Completion of redock for bash; to be read with: eval "$(redock completion bash)"
_redock() {
    local line=${COMP_LINE:0:COMP_POINT} words candidate prefix=
    # Bash splits words at colons, which names contain.
    read -ra words <<<"$line"
    [[ $line == *[[:blank:]] ]] && words+=("")
    local current=${words[${#words[@]} - 1]}
    [[ $COMP_WORDBREAKS == *:* && $current == *:* ]] && prefix=${current%"${current##*:}"}
    COMPREPLY=()
    while IFS= read -r candidate; do
        if [[ $candidate == :files ]]; then
            compopt -o filenames 2>/dev/null
            while IFS= read -r candidate; do
                COMPREPLY+=("${candidate#"$prefix"}")
            done < <(compgen -f -- "$current")
        else
            candidate=${candidate%%$'\\t'*}
            COMPREPLY+=("${candidate#"$prefix"}")
        fi
    done < <("$1" --complete "${words[@]:1}" 2>/dev/null </dev/null)
}
complete -F _redock redock
"""

ZSH = """\
#compdef redock
# Completion of redock for zsh; to be read with: source <(redock completion zsh)
_redock() {
    local line answer
    local -a values descriptions
    local -i files=0
    answer=$(${words[1]} --complete "${(@)words[2,CURRENT]}" 2>/dev/null </dev/null)
    for line in "${(@f)answer}"; do
        if [[ $line == :files ]]; then
            files=1
        elif [[ -n $line ]]; then
            values+=("${line%%$'\\t'*}")
            descriptions+=("${line/$'\\t'/  -- }")
        fi
    done
    (( $#values )) && compadd -d descriptions -a values
    (( files )) && _files
}
if [[ ${funcstack[1]} == _redock ]]; then
    _redock "$@"
else
    compdef _redock redock
fi
"""

FISH = """\
# Completion of redock for fish; to be read with: redock completion fish | source
function __redock_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in ($words[1] --complete $words[2..-1] 2>/dev/null </dev/null)
        if test "$line" = ":files"
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end
complete -c redock -f -a '(__redock_complete)'
"""

SCRIPTS = {"bash": BASH, "fish": FISH, "zsh": ZSH}


def answer(words: Sequence[str], make_parser: Callable[[str], argparse.ArgumentParser]) -> int:
    """
    Print what may stand in the place of the last word.

    :param words: The command line without the program's name; the last word is the one to
                  complete, perhaps empty.
    :param make_parser: Describes the command line, given its first word.
    :returns: The exit status, always 0: a shell has nobody to tell.
    """
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        # The last word is not there yet.
        first = words[0] if len(words) > 1 else ""
        lines = find_candidates(list(words) or [""], make_parser(first))
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    except Exception:
        # Whatever it is: between two keys nobody wants to read about it.
        os._exit(0)
    return 0


def find_candidates(words: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """
    Find out what may stand in the place of the last word.

    :param words: The words of the command line.
    :param parser: What describes it.
    :returns: Lines for the shell: candidates with descriptions, perhaps :data:`FILES`.
    """
    *before, current = words
    place = Place(parser, current)
    for word in before:
        place.go_on(word)
    if place.option is not None:
        found = place.values_of(place.option)
    elif current.startswith("-") and not place.only_arguments:
        found = place.options()
    else:
        found = [line for action in place.expected() for line in place.values_of(action)]
    return sorted(
        {line for line in found if line == FILES or line.startswith(current)},
        key=lambda line: (line == FILES, line),
    )


class Place:
    """
    Where on a command line we are.

    :param parser: What describes the command line.
    :param current: The word that is to be completed.
    """

    def __init__(self, parser: argparse.ArgumentParser, current: str) -> None:
        self.enter(parser, "")
        self.current = current
        #: The option whose value comes next.
        self.option: argparse.Action | None = None
        #: Whether "--" was there.
        self.only_arguments = False

    def enter(self, parser: argparse.ArgumentParser, verb: str) -> None:
        """
        Go into a command.

        :param parser: What describes it.
        :param verb: Its name.
        """
        self.parser = parser
        self.verb = verb
        self.flags = {flag: each for each in parser._actions for flag in each.option_strings}
        self.arguments = [each for each in parser._actions if not each.option_strings]
        #: The arguments that were given, those that belong to no option.
        self.given: list[str] = []

    def go_on(self, word: str) -> None:
        """
        Go past a word.

        :param word: The word.
        """
        if self.option is not None:
            self.option = None
        elif word == "--" and not self.only_arguments:
            self.only_arguments = True
        elif word.startswith("-") and not self.only_arguments:
            action = self.flags.get(word)
            if action is not None and action.nargs != 0:
                self.option = action
        else:
            self.given.append(word)
            for action in self.arguments[:1]:
                if isinstance(action, argparse._SubParsersAction) and word in action.choices:
                    self.enter(action.choices[word], word)

    def expected(self) -> list[argparse.Action]:
        """
        Find the arguments that may come next.

        :returns: Usually one; where there may be any number of them also the one behind.
        """
        count = len(self.given)
        for number, action in enumerate(self.arguments):
            if action.nargs in ("+", "*", "..."):
                behind = self.arguments[number + 1 : number + 2] if count or number else []
                return [action, *behind]
            if number == count:
                return [action]
        return []

    def options(self) -> list[str]:
        """
        List the options that may come next.

        :returns: Lines for the shell.
        """
        return [
            describe(flag, action.help or "")
            for flag, action in self.flags.items()
            if action.help != argparse.SUPPRESS
        ]

    def values_of(self, action: argparse.Action) -> list[str]:
        """
        List what an argument or the value of an option may be.

        :param action: The argument.
        :returns: Lines for the shell.
        """
        if isinstance(action, argparse._SubParsersAction):
            return [describe(str(each.dest), each.help or "") for each in action._choices_actions]
        if action.choices is not None:
            return [str(each) for each in action.choices]
        shown = str(action.metavar or action.dest.upper())
        kinds = () if action.option_strings else KINDS.get(shown, ())
        if shown == "NAME" and kinds:
            kinds = EXCEPTIONS.get(self.verb, kinds)
        elif action.nargs == "..." or any(word in shown for word in FILE_WORDS):
            kinds = (FILES,)
        found = [FILES] if FILES in kinds else []
        if not set(kinds) <= {FILES}:
            # Where no engine answers there are no names, but perhaps files.
            with contextlib.suppress(RedockError):
                found += find_names(kinds, self.current, self.given)
        return found


def describe(candidate: str, text: str) -> str:
    """
    Make a line for the shell.

    :param candidate: What may stand there.
    :param text: What it is.
    :returns: The line.
    """
    return f"{candidate}\t{text}" if text else candidate


def find_names(kinds: Iterable[str], current: str, given: Sequence[str]) -> list[str]:
    """
    Ask the engine for names.

    :param kinds: The kinds of names.
    :param current: What is there of the name; with a colon in it names have their repositories.
    :param given: The arguments before.
    :returns: Lines for the shell.
    """
    from redock import _listing
    from redock._names import default_repository

    engine = _listing.Engine()
    found: dict[str, str] = {}
    if IMAGES in kinds:
        saved = engine.images({"label": [_listing.COMMITTED]})
        found.update(dict.fromkeys(_listing.saved_names(saved), "saved"))
    if MACHINES in kinds:
        found.update(_listing.find_names(engine))
    mine = f"{default_repository()}:"
    hidden = "" if ":" in current else mine
    # Of a command that takes several names, each once.
    taken = set(given) | {f"{mine}{name}" for name in given}
    return [
        describe(name.removeprefix(hidden), state)
        for name, state in found.items()
        if name not in taken
    ]
