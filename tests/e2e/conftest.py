"""Fixtures that more than one file uses. Those over `service` take the file's own."""

import pytest

from between import Behind
from service import Images
from volumes import Volumes


@pytest.fixture(name="images", scope="module")
def images_of(service):
    return Images(service)


@pytest.fixture(name="volumes", scope="module")
def volumes_of(service):
    return Volumes(service)


@pytest.fixture(name="world", scope="module")
def behind_a_proxy():
    """A service, and a proxy through which pushes and pulls go."""
    with Behind(options=["--store.gc-interval=0s"]) as service:
        yield service


@pytest.fixture(name="forward_all")
def forward_all_after_a_test(world):
    yield
    world.between.on = lambda method, path, body: None
