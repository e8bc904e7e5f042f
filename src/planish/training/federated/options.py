"""`Federation`: the options of a federated training, as a value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from planish.errors import OptionError, UnknownName
from planish.registry import Registry
from planish.training.federated import accountant
from planish.training.federated.partition import Partition
from planish.training.federated.update import Update
from planish.training.options import Training

Side = Literal["server", "client"]
Engine = Literal["process", "ray"]
strategies = Registry(
    "federated-strategy",
    {
        "fedavg": "planish.training.federated.combine:fed_avg",
        "fedprox": "planish.training.federated.combine:fed_prox",
        "fedadam": "planish.training.federated.combine:fed_adam",
        "fedyogi": "planish.training.federated.combine:fed_yogi",
        "krum": "planish.training.federated.combine:krum",
        "trimmed-mean": "planish.training.federated.combine:trimmed_mean",
    },
)
SUMMING = ("fedavg", "fedprox")
"""Strategies whose result is a weighted mean of updates, which is all that noise and secure aggregation fit."""
ADAPTIVE = ("fedadam", "fedyogi")
"""Strategies that take a step of their own along the mean."""


def local(**options: object) -> Training:
    """The usual training of one client in one round: one pass by gradient descent at a constant rate."""
    usual = {"epochs": 1, "learning_rate": 0.05, "optimizer": "sgd", "schedule": "constant", "warmup": 0.0}
    return Training(**{**usual, "weight_decay": 0.0, "clip": None, **options})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Privacy:
    """Differential privacy for whole clients; its text form is "noise=1,clip=0.5" with "delta=" and "by=" if need be.

    Attributes:
        noise: Standard deviation of the noise, in units of `clip`.
        clip: The longest update over all numbers; longer ones are shortened.
        delta: The chance with which the promise may fail.
        by: Who clips and adds the noise: the server, once for all (clients trust it); or each client for itself, which
            takes far more noise for the same promise.
    """

    noise: float
    clip: float
    delta: float = 1e-5
    by: Side = "server"

    def __post_init__(self) -> None:
        for name in ("noise", "clip"):
            if not getattr(self, name) > 0:
                raise OptionError(f"{name} is greater than 0, not {getattr(self, name)!r}", f"privacy.{name}")
        if not 0 < self.delta < 1:
            raise OptionError(f"delta is between 0 and 1, not {self.delta!r}", "privacy.delta", "delta=1e-5")
        if self.by not in get_args(Side):
            raise OptionError(f"{self.by!r} adds no noise", "privacy.by", f"one of {', '.join(get_args(Side))}")

    def __str__(self) -> str:
        parts = [f"noise={self.noise:g}", f"clip={self.clip:g}"]
        parts += [f"delta={self.delta:g}"] if self.delta != 1e-5 else []
        return ",".join([*parts, f"by={self.by}"] if self.by != "server" else parts)

    @classmethod
    def parse(cls, text: str) -> Privacy:
        """The privacy that a text stands for.

        Raises:
            OptionError: It stands for none.
        """
        given: dict[str, object] = {}
        for part in text.split(","):
            name, equals, value = part.strip().partition("=")
            try:
                given[name] = value if name == "by" else float(value)
            except ValueError:
                equals = ""
            if not equals or name not in ("noise", "clip", "delta", "by"):
                raise OptionError(f"cannot read {part.strip()!r}", "privacy", "noise=1,clip=0.5,delta=1e-5,by=server")
        if missing := [name for name in ("noise", "clip") if name not in given]:
            raise OptionError(f"the {missing[0]} is missing", "privacy", "noise=1,clip=0.5")
        return cls(**given)  # type: ignore[arg-type]  # checked there

    def epsilon(self, share: float, rounds: int) -> float:
        """What `rounds` rounds have spent, each with this share of the clients.

        By the server: for a client that takes part or not, drawn with the chance `share`. By the clients: for any two
        updates of one client that sent `rounds` of them, which differ by `2 * clip`, and no client hides in a crowd.
        """
        if self.by == "server":
            return accountant.epsilon(share, self.noise, rounds, self.delta)
        return accountant.epsilon(1.0, self.noise / 2, rounds, self.delta)


@dataclass(frozen=True)
class Federation:
    """The options of a federated training.

    Attributes:
        clients: How many.
        partition: Who has which rows: "iid", "dirichlet:0.3", "owner".
        strategy: How updates become one: "fedavg", "fedprox", "fedadam", "fedyogi", "krum", "trimmed-mean".
        rounds: Rounds in all.
        fraction: Share of the clients that each round asks. With privacy by the server each client is drawn with this
            chance, as the accounting needs it; otherwise as many are drawn without replacement.
        local: What each of them does in a round.
        batch_size: Rows of a step.
        update: How updates are sent: "float32", "int8", "int4@g32*float16", "topk:1%", "topk:5%,int4@g32*float16".
        privacy: Clipping and noise; None for none.
        secure: The server sees only the sum of the updates (SecAgg+, arXiv 2012.05690).
        proximal: FedProx's weight of the squared distance to the round's start (arXiv 1812.06127).
        server_rate: Step of FedAdam and FedYogi (arXiv 2003.00295).
        faulty: Clients that Krum expects to lie (arXiv 1703.02757).
        trim: Share of the lowest and of the highest values that the trimmed mean leaves out (arXiv 1803.01498).
        timeout: Seconds after which a client that does not answer is left out of the round.
        engine: What simulates: "process" takes one client after the other; "ray" is Flower's own engine.
        seed: Of all that is random.
    """

    clients: int = 10
    partition: Partition | str = "iid"
    strategy: str = "fedavg"
    rounds: int = 10
    fraction: float = 1.0
    local: Training = field(default_factory=local)
    batch_size: int = 32
    update: Update | str = "float32"
    privacy: Privacy | str | None = None
    secure: bool = False
    proximal: float = 0.01
    server_rate: float = 0.1
    faulty: int = 1
    trim: float = 0.1
    timeout: float = 600.0
    engine: Engine = "process"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in (("partition", Partition), ("update", Update), ("privacy", Privacy)):
            if isinstance(given := getattr(self, name), str):
                object.__setattr__(self, name, kind.parse(given))
        for name in ("clients", "rounds", "batch_size"):
            count = getattr(self, name)
            if type(count) is not int or count < 1:
                raise OptionError(f"{name} is a count of 1 or more, not {count!r}", name, f"{name}=10")
        for name in ("proximal", "server_rate", "timeout"):
            if not getattr(self, name) > 0:
                raise OptionError(f"{name} is greater than 0, not {getattr(self, name)!r}", name)
        if not 0 < self.fraction <= 1:
            raise OptionError(f"a fraction is above 0 and at most 1, not {self.fraction!r}", "fraction", "fraction=0.5")
        if not 0 <= self.trim < 0.5:
            raise OptionError(f"less than half can be trimmed at each end, not {self.trim!r}", "trim", "trim=0.1")
        if self.engine not in get_args(Engine):
            raise OptionError(f"unknown engine {self.engine!r}", "engine", f"one of {', '.join(get_args(Engine))}")
        self._check_together()

    def _check_together(self) -> None:
        if self.strategy not in strategies:
            raise UnknownName(strategies.kind, self.strategy, strategies)
        if self.strategy == "krum" and not 0 <= self.faulty <= (self.asked - 3) / 2:
            what = f"Krum needs 2f + 3 clients for f liars, and {self.asked} are asked for {self.faulty}"
            raise OptionError(what, "faulty", f"faulty={max(0, (self.asked - 3) // 2)}, or more clients")
        for name in ("privacy", "secure"):
            if getattr(self, name) and self.strategy not in SUMMING:
                what = f"{self.strategy} is no mean of updates, which {name} needs"
                raise OptionError(what, "strategy", f"strategy={SUMMING[0]!r}")
        if self.secure and not self.how.is_exact:
            hint = "either secure or update"
            raise OptionError("secure aggregation adds up masked numbers, which nothing compresses", "update", hint)
        if self.secure and self.noisy and self.noisy.by == "server":
            what = "the server cannot clip what it does not see"
            raise OptionError(what, "privacy", f"{self.noisy},by=client".replace(",by=server", ""))
        if self.secure and self.asked < 3:
            raise OptionError("a sum hides nobody with fewer than 3 clients", "secure", "clients=3")

    @property
    def dealt(self) -> Partition:
        """The partition, as a value."""
        assert isinstance(self.partition, Partition), "the constructor reads it"
        return self.partition

    @property
    def how(self) -> Update:
        """How updates are sent, as a value."""
        assert isinstance(self.update, Update), "the constructor reads it"
        return self.update

    @property
    def noisy(self) -> Privacy | None:
        """The privacy, as a value."""
        assert not isinstance(self.privacy, str), "the constructor reads it"
        return self.privacy

    @property
    def asked(self) -> int:
        """Clients that a round asks (on average, with privacy by the server)."""
        return max(1, round(self.fraction * self.clients))
