"""Federated learning: clients keep their rows, and a server adds up their updates. Flower carries the messages."""

from planish.training.federated.federate import Federated, federate
from planish.training.federated.options import Federation, Privacy, local, strategies
from planish.training.federated.partition import Partition
from planish.training.federated.rounds import Round
from planish.training.federated.update import Update

__all__ = ["Federated", "Federation", "Partition", "Privacy", "Round", "Update", "federate", "local", "strategies"]
