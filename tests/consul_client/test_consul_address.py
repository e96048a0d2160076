from __future__ import annotations

from dataclasses import replace

import pytest

from citadel_consul.consul.address import ConsulAddress, parse_address
from citadel_consul.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "scheme", "host", "port"),
    [
        ("127.0.0.1:8500", "http", "127.0.0.1", 8500),
        ("consul.example.com:18500", "http", "consul.example.com", 18500),
        ("consul", "http", "consul", 8500),
        ("  consul:1  ", "http", "consul", 1),
        ("http://consul:8500", "http", "consul", 8500),
        ("http://consul:8500/", "http", "consul", 8500),
        ("HTTPS://consul:8501", "https", "consul", 8501),
        ("https://consul.example.com", "https", "consul.example.com", 443),
        ("http://consul.example.com", "http", "consul.example.com", 80),
        ("[::1]:8500", "http", "::1", 8500),
        ("[fe80::1%eth0]", "http", "fe80::1%eth0", 8500),
        ("https://[2001:db8::7]:8501", "https", "2001:db8::7", 8501),
    ],
)
def test_an_address_is_read_in_every_spelling_of_consul(text: str, scheme: str, host: str, port: int) -> None:
    address = parse_address(text)
    assert (address.scheme, address.host, address.port) == (scheme, host, port)
    assert address.socket_path is None


def test_a_unix_socket_is_an_address() -> None:
    address = parse_address("unix:///run/consul.sock")
    assert (address.scheme, address.socket_path) == ("unix", "/run/consul.sock")
    assert str(address) == "unix:///run/consul.sock"
    assert address.base_url == "http://localhost"


def test_an_ipv6_host_gets_its_brackets_back_in_the_url() -> None:
    assert parse_address("https://[::1]:8501").base_url == "https://[::1]:8501"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "no host and port"),
        ("http://", "no host and port"),
        (":8500", "no host and port"),
        ("consul:", "bad port"),
        ("consul:eighty", "bad port"),
        ("consul:0", "bad port"),
        ("consul:65536", "bad port"),
        ("consul:-1", "bad port"),
        ("::1:8500", "no host and port"),
        ("[::1", "no host and port"),
        ("[::1]8500", "no host and port"),
        ("con sul:8500", "no host and port"),
        ("ftp://consul:8500", "unknown scheme 'ftp'"),
        ("unix://consul.sock", "has to be absolute"),
        ("http://consul:8500/v1", "nothing can follow"),
        ("http://consul:8500?token=x", "nothing can follow"),
        ("http://consul:8500#x", "nothing can follow"),
        ("http://me:secret@consul:8500", "credentials do not belong"),
    ],
)
def test_a_bad_address_is_refused_with_its_place_and_a_remedy(text: str, part: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_address(text, "--consul")
    (problem,) = caught.value.problems
    assert problem.place == "--consul"
    assert part in problem.message
    assert problem.remedy
    assert "secret" not in str(caught.value)


def test_no_rendering_of_an_address_shows_its_token() -> None:
    address = ConsulAddress(token="s.very-secret")
    for text in (str(address), repr(address), f"{address}", f"{address!r}"):
        assert "secret" not in text


@pytest.mark.parametrize("token", ["", "with space", "ending\n", "umläut", "tab\t"])
def test_what_cannot_be_a_token_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        replace(ConsulAddress(), token=token)
    assert not token.strip() or token.strip() not in str(caught.value)


def test_a_key_without_a_certificate_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no certificate"):
        ConsulAddress(client_key="/etc/consul.key")


def test_a_socket_path_belongs_to_the_scheme_unix() -> None:
    with pytest.raises(InvalidInput):
        ConsulAddress(scheme="unix")
    with pytest.raises(InvalidInput):
        ConsulAddress(scheme="http", socket_path="/run/consul.sock")
