from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.training.parallel.pool import Pool


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    """Workers for all tests of a session."""
    made = Pool()
    yield made
    made.end()
