"""Fixtures of the development cluster's own tests."""

from __future__ import annotations

import pytest

from hack.devcluster.control_plane import free_ports


@pytest.fixture
def unused_tcp_port() -> int:
    """A port of 127.0.0.1 that is free now."""
    return free_ports(1)[0]
