"""Where the trials of a search are kept: in memory, in a file of the run folder, or in a database for many machines.

A trial that is under way has a heartbeat. One whose worker is gone is taken up again: by the next run on the same
machine at once, under its own number, so that a resumed search is the search that was interrupted; by any worker after
`GRACE` seconds, as a new trial of the same point.
"""

from __future__ import annotations

import os
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from planish.errors import MissingExtra, UserError

try:
    import optuna
    from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
    from optuna.trial import FrozenTrial, Trial, TrialState
    from sqlalchemy import Connection, Engine, event
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError, SQLAlchemyError
except ModuleNotFoundError as missing:
    raise MissingExtra(missing.name or "optuna", "search", "planish.search") from missing

HEARTBEAT, GRACE = 10, 30
"""Seconds between signs of life, and without one until a trial counts as abandoned."""
PATIENCE = 60
"""Seconds to wait for a locked file."""
RETRIES = 2
UNCLAIMED = 1.0
"""Seconds within which a worker that lives claims a trial."""
WORKER, RELEASED = "worker", "released"


class StorageError(UserError):
    """The storage of a search is locked, gone, or of another search."""


def open_storage(url: str | None) -> BaseStorage:
    """The storage at a URL (`sqlite:///search.db`, `postgresql://…`, `mysql://…`); None is in memory.

    Raises:
        StorageError: It cannot be opened.
        MissingExtra: The database's driver is not installed.
    """
    if url is None:
        return InMemoryStorage()
    is_file = url.startswith("sqlite")
    if is_file and not (folder := Path(url.removeprefix("sqlite:///")).parent).is_dir():
        raise StorageError("there is no such folder", str(folder), "sqlite:///FOLDER/search.db")
    with speaking(url), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        kept = RDBStorage(
            url,
            engine_kwargs={"connect_args": {"timeout": PATIENCE}} if is_file else {"pool_pre_ping": True},
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
        )
    if is_file:
        _lock_before_reading(kept.engine)
    return kept


def _lock_before_reading(engine: Engine) -> None:
    """Begin each transaction with SQLite's write lock.

    Python's driver begins one only when it writes: two workers could both read that a trial waits, both take it, and
    the slower one's "running" would be written over the "complete" of the other.
    """

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # what was connected before


@contextmanager
def opened(url: str | None) -> Iterator[BaseStorage]:
    """The storage at a URL, closed in the end.

    Raises:
        StorageError, MissingExtra: As `open_storage`.
    """
    kept = open_storage(url)
    try:
        yield kept
    finally:
        if isinstance(kept, RDBStorage):
            kept.remove_session()
            kept.engine.dispose()


@contextmanager
def speaking(url: str | None) -> Iterator[None]:
    """Say what a database has to say in a sentence."""
    try:
        yield
    except (ModuleNotFoundError, ImportError) as error:
        raise MissingExtra(getattr(error, "name", None) or "the database's driver", "search", str(url)) from error
    except (ArgumentError, NoSuchModuleError) as error:
        raise StorageError(f"this is no storage: {_first(error)}", str(url), "sqlite:///search.db") from error
    except OperationalError as error:
        locked = "locked" in str(error)
        what = "the storage is locked by another program" if locked else f"the storage is gone: {_first(error)}"
        hint = "end what holds it" if locked else "start the database, or check the URL"
        raise StorageError(what, str(url), f"{hint}, then run the same command: it goes on") from error
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        raise StorageError(
            f"the storage failed: {_first(error)}", str(url), "run the same command: it goes on"
        ) from error


def _first(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def worker_name() -> str:
    """This process: machine, number, and when it began, as numbers are used again."""
    return f"{socket.gethostname()}:{os.getpid()}:{_began(os.getpid())}"


def orphans(study: optuna.Study) -> list[Trial]:
    """Trials that were interrupted, or whose process on this machine is gone, to be gone on with."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [Trial(study, trial._trial_id) for trial in running if _is_orphan(trial)]


def claim(storage: BaseStorage, trial: Trial) -> None:
    """Say whose a trial is. Its first sign of life comes before: Optuna never gives up a trial that had none."""
    if isinstance(storage, RDBStorage):
        storage.record_heartbeat(trial._trial_id)
    trial.set_user_attr(WORKER, f"{worker_name()}:{trial.number}")


def reap(study: optuna.Study) -> None:
    """End the trials whose worker was gone before it could claim them."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not _is_claimed(trial) and _age(trial) > GRACE:
            with suppress(optuna.exceptions.UpdateFinishedTrialError, ValueError):  # somebody else was faster
                study.tell(trial.number, state=TrialState.FAIL)


def _is_claimed(trial: FrozenTrial) -> bool:
    """Whether a worker took this trial, and not only the one that it repeats."""
    return str(trial.user_attrs.get(WORKER, "")).endswith(f":{trial.number}")


def _age(trial: FrozenTrial) -> float:
    return (datetime.now() - trial.datetime_start).total_seconds() if trial.datetime_start else 0.0


def _is_orphan(trial: FrozenTrial) -> bool:
    if trial.user_attrs.get(WORKER) == RELEASED:
        return True
    if not _is_claimed(trial):
        return _age(trial) > UNCLAIMED
    host, _, process = str(trial.user_attrs.get(WORKER, "")).partition(":")
    number, began, _ = process.split(":")
    if host != socket.gethostname() or not number.isdigit():
        return False
    return _began(int(number)) != began


def _began(process: int) -> str:
    """When a process began, in the system's ticks; empty where there is none, or the system does not say."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    try:
        os.kill(process, 0)
    except OSError:
        return "gone"
    return ""


@contextmanager
def beating(storage: BaseStorage, trial: Trial) -> Iterator[None]:
    """Give signs of life of a trial while it is under way."""
    if not isinstance(storage, RDBStorage):
        yield
        return
    over = threading.Event()
    interval = storage.get_heartbeat_interval() or HEARTBEAT

    def beat() -> None:
        while True:
            with suppress(SQLAlchemyError):  # a database that is busy now will be told the next time
                storage.record_heartbeat(trial._trial_id)
            if over.wait(interval):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
