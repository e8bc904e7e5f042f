"""How rows of data are dealt out to clients: evenly, by label with a Dirichlet skew, or by who owns them.

Each function gives one array of row numbers a client; every row has exactly one client.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from planish.errors import DataError, OptionError

Kind = Literal["iid", "dirichlet", "owner"]
Shares = list[np.ndarray]


@dataclass(frozen=True)
class Partition:
    """A way to deal out rows; its text form is "iid", "dirichlet:0.3" or "owner".

    Attributes:
        kind: "iid": a shuffled deck dealt out; "dirichlet": each label's rows in shares drawn from a Dirichlet
            distribution (Hsu, Qi and Brown, arXiv 1909.06335); "owner": all rows of one owner to one client.
        alpha: Of the Dirichlet distribution: the smaller, the fewer labels a client sees.
    """

    kind: Kind = "iid"
    alpha: float = 0.5

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            hint = f"one of {', '.join(get_args(Kind))}"
            raise OptionError(f"unknown partition {self.kind!r}", "partition", hint)
        if not self.alpha > 0:
            raise OptionError(
                f"a Dirichlet's alpha is greater than 0, not {self.alpha!r}", "partition", "dirichlet:0.3"
            )

    def __str__(self) -> str:
        return f"dirichlet:{self.alpha:g}" if self.kind == "dirichlet" else self.kind

    @classmethod
    def parse(cls, text: str) -> Partition:
        """The partition that a text stands for.

        Raises:
            OptionError: It stands for none.
        """
        kind, colon, alpha = text.partition(":")
        if kind != "dirichlet" and colon:
            raise OptionError(f"only a Dirichlet partition takes a number, not {kind!r}", "partition", "dirichlet:0.3")
        try:
            return cls(kind, float(alpha)) if colon else cls(kind)  # type: ignore[arg-type]  # checked there
        except ValueError as error:
            raise OptionError(f"alpha is a number, not {alpha!r}", "partition", "dirichlet:0.3") from error

    def split(
        self, targets: Sequence[Any], clients: int, seed: int, owners: Sequence[Hashable] | None = None
    ) -> Shares:
        """Row numbers of each client.

        Args:
            targets: One a row; "dirichlet" reads them as labels.
            clients: How many.
            seed: Of all that is drawn.
            owners: One a row, which "owner" needs.

        Raises:
            DataError: There are fewer rows, or owners, than clients; or rows without label or owner.
        """
        if len(targets) < clients:
            raise DataError(f"{clients} clients cannot share {len(targets)} rows", "clients", "fewer clients")
        if self.kind == "owner":
            if owners is None or len(owners) != len(targets):
                found = "none" if owners is None else f"{len(owners)} owners of {len(targets)} rows"
                raise DataError(f"a partition by owner needs one owner a row, not {found}", "owner", "owner=key(row)")
            return by_owner(owners, clients, seed)
        if self.kind == "dirichlet":
            return dirichlet(targets, clients, self.alpha, seed)
        return iid(len(targets), clients, seed)


def iid(rows: int, clients: int, seed: int) -> Shares:
    """A shuffled deck dealt out; sizes differ by one at most."""
    return [np.sort(part) for part in np.array_split(np.random.default_rng(seed).permutation(rows), clients)]


def dirichlet(labels: Sequence[Hashable], clients: int, alpha: float, seed: int) -> Shares:
    """For each label, shares over the clients drawn from Dirichlet(alpha); a client without any row is given one of the
    largest's.

    Raises:
        DataError: A label is no plain value.
    """
    random = np.random.default_rng(seed)
    try:
        _, codes = np.unique(np.asarray(labels), return_inverse=True)
    except TypeError as error:
        raise DataError(f"labels cannot be sorted: {error}", "partition", "partition='iid'") from error
    if codes.ndim != 1 or len(codes) != len(labels):
        raise DataError("a Dirichlet partition needs one label a row", "partition", "partition='iid'")
    parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
    for code in range(int(codes.max()) + 1):
        rows = random.permutation(np.flatnonzero(codes == code))
        borders = np.rint(np.cumsum(random.dirichlet(np.full(clients, alpha)))[:-1] * len(rows)).astype(int)
        for part, own in zip(parts, np.split(rows, borders), strict=True):
            part.append(own)
    shares = [np.concatenate(part) for part in parts]
    for place in range(clients):
        if not len(shares[place]):
            largest = max(range(clients), key=lambda each: len(shares[each]))
            shares[place], shares[largest] = shares[largest][:1], shares[largest][1:]
    return [np.sort(share) for share in shares]


def by_owner(owners: Sequence[Hashable], clients: int, seed: int) -> Shares:
    """Each owner's rows to one client; owners are dealt out, the largest first, to the client with the fewest rows.

    Raises:
        DataError: There are fewer owners than clients.
    """
    rows: dict[Hashable, list[int]] = {}
    for place, owner in enumerate(owners):
        rows.setdefault(owner, []).append(place)
    if len(rows) < clients:
        raise DataError(f"{len(rows)} owners cannot be {clients} clients", "clients", f"clients={len(rows)}")
    groups = list(rows.values())
    order = np.random.default_rng(seed).permutation(len(groups))
    shares: list[list[int]] = [[] for _ in range(clients)]
    for place in sorted(order, key=lambda each: -len(groups[each])):
        min(shares, key=len).extend(groups[place])
    return [np.array(sorted(share)) for share in shares]


Owner = Callable[[tuple[Any, ...]], Hashable]
"""`(args, kwargs, target)` of one row -> whose it is."""
