"""What a run says: one self-contained page, and ten lines for the terminal. Both read a run folder and call nothing."""

from planish.report.page import write

__all__ = ["write"]
