"""A server's allocators are chosen before Arrow is loaded, unless the environment has chosen already."""

from __future__ import annotations

import os
import subprocess
import sys

import pyarrow as pa
import pytest

CHOSEN = """
import timedb.cli.main
from timedb.cli.allocators import choose_allocators
choose_allocators()
import pyarrow as pa
print(pa.default_memory_pool().backend_name)
"""


def backend(**environment: str) -> str:
    """The allocator of Arrow in a process that has chosen."""
    cleared = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    done = subprocess.run(
        [sys.executable, "-c", CHOSEN], env={**cleared, **environment}, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.mark.skipif(
    sys.platform != "linux" or "jemalloc" not in pa.supported_memory_backends(), reason="Arrow has no jemalloc here"
)
def test_a_server_gives_memory_back() -> None:
    assert backend() == "jemalloc"


def test_the_environment_has_the_last_word() -> None:
    assert backend(ARROW_DEFAULT_MEMORY_POOL="system", MALLOC_ARENA_MAX="4") == "system"
