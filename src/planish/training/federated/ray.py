"""A federation in Flower's own simulation engine, which runs clients in processes of Ray."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.util import find_spec

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from planish.errors import MissingExtra, PlanishError
from planish.training.federated.apps import client_app
from planish.training.federated.client import Client
from planish.training.federated.flower import quiet
from planish.training.federated.server import Server


def simulate(server: Server, make: Callable[[int], Client]) -> None:
    """Run a server's federation to its end.

    Args:
        server: Its rounds are run in this process.
        make: Gives the client of a number, in Ray's processes.

    Raises:
        MissingExtra: Ray is not installed.
        PlanishError: What the server raised.
    """
    if find_spec("ray") is None:
        raise MissingExtra("ray", "federated", "engine='ray'")
    app, raised = ServerApp(), list[PlanishError]()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            server.run(grid)
        except PlanishError as error:
            raised.append(error)

    with quiet():
        run_simulation(
            app,
            client_app(server.federation, make),
            server.federation.clients,
            backend_config={
                "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
                "init_args": {"log_to_driver": False, "logging_level": logging.ERROR},
            },
        )
    if raised:
        raise raised[0]
