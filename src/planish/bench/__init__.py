"""What an artifact costs outside a warm loop: its cold start and its peak memory."""

from planish.bench.start import start

__all__ = ["start"]
