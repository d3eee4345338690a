"""Say which addresses a download may connect to: whoever names a URL must not reach this network through us. Pure."""

from enum import Enum
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

_NAT64 = IPv6Network("64:ff9b::/96")
"""Leads to the IPv4 address in its last 32 bits. Source: RFC 6052."""

_SPECIAL = [
    ip_network(network)
    for network in (
        "192.0.0.0/24",  # IETF protocol assignments; Oracle Cloud keeps a metadata service there
        "192.88.99.0/24",  # once relays of 6to4
        "168.63.129.16/32",  # Azure's own, in each of its virtual networks
        "3fff::/20",  # documentation
    )
]
"""What Python 3.11 to 3.14 do not all know as not public. Source: IANA's special-purpose registries, Azure's docs."""


class Reach(Enum):
    """Where a download may go. The value says it of a host that is elsewhere."""

    PUBLIC = "its host is not on the public internet"
    PUBLIC_OR_LOOPBACK = "its host is neither on the public internet nor this machine"
    LOOPBACK = "its host is not this machine, and from others only https is fetched"


def is_within(address: str, reach: Reach) -> bool:
    """Whether *address*, an IP address as a socket takes it, may be connected to. What is no address may not."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if ip.is_loopback:
        return reach is not Reach.PUBLIC
    return reach is not Reach.LOOPBACK and _is_public(_behind(ip))


def _behind(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that *ip* is a way to, else *ip*."""
    if isinstance(ip, IPv6Address):
        if ip.sixtofour is not None:
            return ip.sixtofour
        if ip in _NAT64:
            return IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip


def _is_public(ip: IPv4Address | IPv6Address) -> bool:
    # Python counts multicast and site-local addresses as global.
    is_other = ip.is_multicast or ip.is_reserved or ip.is_unspecified or getattr(ip, "is_site_local", False)
    return ip.is_global and not is_other and not any(ip in network for network in _SPECIAL)
