"""What must hold before any test module is imported."""

import setuptools  # noqa: F401  # Inductor needs its distutils, which must come before anything imports Python's own
from hypothesis import settings

settings.register_profile("planish", deadline=None)  # a busy machine is no error
settings.load_profile("planish")
