"""How long a search goes on."""

from __future__ import annotations

import re
from dataclasses import dataclass

from planish.errors import OptionError

TIMES = {
    **dict.fromkeys(("", "trial", "trials"), 0),
    **dict.fromkeys(("s", "sec", "seconds"), 1),
    **dict.fromkeys(("m", "min", "minutes"), 60),
    **dict.fromkeys(("h", "hour", "hours"), 3600),
}
"""Seconds of a unit; 0 counts trials."""


@dataclass(frozen=True)
class Budget:
    """When to stop, all runs of a study together.

    Attributes:
        trials: The most trials that end; None: any number.
        seconds: The most wall-clock time; None: any.
    """

    trials: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str | int | Budget) -> Budget:
        """A budget of its text: "20min", "200 trials", "1h, 500 trials".

        Raises:
            OptionError: It cannot be read.
        """
        if isinstance(text, Budget):
            return text
        if isinstance(text, int):
            return cls(trials=text)
        found: dict[str, float] = {}
        for part in text.split(","):
            matched = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", part)
            if matched is None or matched[2] not in TIMES:
                raise OptionError(f"cannot read the budget {text!r}", "budget", "'20min' or '200 trials'")
            found["trials" if TIMES[matched[2]] == 0 else "seconds"] = float(matched[1]) * (TIMES[matched[2]] or 1)
        if any(value <= 0 for value in found.values()):
            raise OptionError("a budget is more than nothing", "budget", "'20min' or '200 trials'")
        trials = found.get("trials")
        return cls(None if trials is None else round(trials), found.get("seconds"))
