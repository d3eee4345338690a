"""Where a download may connect to."""

import pytest

from runner.addresses import Reach, is_within

PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "100.63.255.255",
    "172.32.0.1",
    "192.169.0.1",
    "2606:4700:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",  # how a host without IPv4 gets there
    "2002:808:808::1",
]
LOOPBACK = ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1"]
ELSEWHERE = [
    pytest.param(address, id=name)
    for name, address in {
        "this network": "0.0.0.0",
        "this network, 0/8": "0.1.2.3",
        "private, 10": "10.0.0.1",
        "private, 172": "172.16.0.1",
        "private, 172, last": "172.31.255.255",
        "private, 192.168": "192.168.1.1",
        "carriers' NAT": "100.64.0.1",
        "metadata of Alibaba Cloud": "100.100.100.200",
        "metadata of AWS, GCP, Azure": "169.254.169.254",
        "metadata of Oracle Cloud": "192.0.0.192",
        "metadata of AWS, IPv6": "fd00:ec2::254",
        "Azure's own": "168.63.129.16",
        "documentation": "192.0.2.1",
        "documentation, IPv6": "2001:db8::1",
        "documentation, IPv6, since 2024": "3fff::1",
        "benchmarks": "198.18.0.1",
        "multicast": "224.0.0.1",
        "multicast, global": "224.1.1.1",
        "reserved": "240.0.0.1",
        "broadcast": "255.255.255.255",
        "unspecified, IPv6": "::",
        "private, IPv6": "fc00::1",
        "link-local, IPv6": "fe80::1",
        "link-local, with a zone": "fe80::1%eth0",
        "site-local, IPv6": "fec0::1",
        "multicast, IPv6": "ff0e::1",
        "reserved, IPv6": "4000::1",
        "discard": "100::1",
        "IPv4 mapped": "::ffff:10.0.0.1",
        "IPv4 mapped, metadata": "::ffff:a9fe:a9fe",
        "IPv4 compatible": "::127.0.0.1",
        "IPv4 translated": "::ffff:0:127.0.0.1",
        "NAT64": "64:ff9b::10.0.0.1",
        "NAT64 of loopback": "64:ff9b::7f00:1",
        "NAT64, local": "64:ff9b:1::808:808",
        "6to4": "2002:a00:1::1",
        "6to4 of loopback": "2002:7f00:1::1",
        "6to4 of metadata": "2002:a9fe:a9fe::",
        "Teredo": "2001:0:808:808::1",
        "no address": "localhost",
        "short": "127.1",
        "one number": "2130706433",
        "octal": "0177.0.0.1",
        "hexadecimal": "0x7f.0.0.1",
        "empty": "",
    }.items()
]


@pytest.mark.parametrize("address", PUBLIC)
def test_the_public_internet_may_be_reached_over_https(address: str) -> None:
    """There the world's files are."""
    assert [reach for reach in Reach if is_within(address, reach)] == [Reach.PUBLIC, Reach.PUBLIC_OR_LOOPBACK]


@pytest.mark.parametrize("address", LOOPBACK)
def test_this_machine_may_be_reached_for_local_endpoints_only(address: str) -> None:
    """Whatever listens here trusts whoever can connect."""
    assert [reach for reach in Reach if is_within(address, reach)] == [Reach.PUBLIC_OR_LOOPBACK, Reach.LOOPBACK]


@pytest.mark.parametrize("address", ELSEWHERE)
def test_nothing_else_may_ever_be_reached(address: str) -> None:
    """A model must not be able to ask this network's routers, databases or metadata services through us."""
    assert [reach for reach in Reach if is_within(address, reach)] == []
