"""Fixtures that several test modules use."""

import os
import uuid
from collections.abc import Iterator

import pytest

from gcs_server import GcsServer


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[GcsServer]:
    """A Cloud Storage server on a loopback port; STORAGE_EMULATOR_HOST leads to it until the session ends."""
    before = os.environ.get("STORAGE_EMULATOR_HOST")
    with GcsServer() as server:
        os.environ["STORAGE_EMULATOR_HOST"] = server.url
        yield server
        del os.environ["STORAGE_EMULATOR_HOST"]
    if before is not None:
        os.environ["STORAGE_EMULATOR_HOST"] = before


@pytest.fixture
def bucket(gcs_server: GcsServer) -> Iterator[str]:
    """`gs://` URI of a new, empty bucket; faults planned by the test end with it."""
    gcs_server.clear()
    yield gcs_server.create_bucket(f"test-{uuid.uuid4().hex[:12]}")
    gcs_server.clear()
