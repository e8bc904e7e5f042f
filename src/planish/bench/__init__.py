"""What an artifact costs: timed again beside its rivals, and outside a warm loop."""

from planish.bench.race import compiled_again, race
from planish.bench.start import start

__all__ = ["compiled_again", "race", "start"]
