"""'Did you mean …?': the remedy for a word that is not among the known ones."""

from __future__ import annotations

from collections.abc import Iterable

_SHOWN = 12


def suggest(word: str, known: Iterable[str], kind: str = "known") -> str:
    """A remedy that names the known word closest to ``word``, or else lists what is known.

    ``kind`` introduces the list: ``"known keys"`` gives ``known keys: a, b``. Empty if nothing is known.
    """
    import difflib  # only when something is wrong already

    options = list(dict.fromkeys(known))
    folded = {option.casefold(): option for option in reversed(options)}
    close = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    if close:
        return f"did you mean {folded[close[0]]}?"
    if not options:
        return ""
    tail = ", …" if len(options) > _SHOWN else ""
    return f"{kind}: {', '.join(options[:_SHOWN])}{tail}"
