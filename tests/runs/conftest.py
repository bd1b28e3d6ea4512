import pytest


@pytest.fixture
def run(trained_on_photos):
    return trained_on_photos
