"""
What holds in every node of a cluster, written for pytest-testinfra.

Run it from a directory with a ``cluster.toml``::

    redock cluster up
    pytest --hosts "$(redock cluster inventory --format testinfra | paste -sd,)" test_nodes.py
"""

from __future__ import annotations

from typing import Any


def test_the_ssh_server_listens(host: Any) -> None:
    assert host.package("openssh-server").is_installed
    assert host.socket("tcp://0.0.0.0:22").is_listening


def test_it_has_an_address_in_the_private_network(host: Any) -> None:
    (address,) = host.interface("eth0").addresses
    assert address in host.addr(host.check_output("hostname")).ip_addresses


def test_the_host_keys_are_secret(host: Any) -> None:
    key = host.file("/etc/redock/ssh/ssh_host_ed25519_key")
    assert (key.user, key.mode) == ("root", 0o600)


def test_supervisor_looks_after_it(host: Any) -> None:
    assert host.process.get(user="root", comm="supervisord").pid == 1
