"""Names, hosts and signatures, as a certificate says them."""

import pytest
from certificates_of_others import CA, sign
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from restpipe.exceptions import IdentityError
from restpipe.identity.certificates import (
    certificate_name,
    certificate_roles,
    host_name,
    parse_certificate,
    trust_path,
)

LONG_LABEL = "x" * 64
LONG_NAME = ".".join(["x" * 60] * 5)


@pytest.mark.parametrize("name", ["a", "0", "alpha", "file-server.example.com", "A_1", "1.2.3.4", "x" * 64])
def test_the_name_of_a_node_is_the_common_name_of_its_certificate(name: str) -> None:
    assert certificate_name(sign(name).certificate) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "-flag", "_a", "a b", "a/b", "../a", "a\n", "a\x00", "\uff41lpha", "é", "a*", "x" * 65],
)
@pytest.mark.filterwarnings("ignore:Attribute's length must be")
def test_a_name_that_is_unsafe_in_a_path_a_log_or_a_url_is_refused(name: str) -> None:
    certificate = parse_certificate(sign(name).pem)
    with pytest.raises(IdentityError, match="name of a node") as caught:
        certificate_name(certificate)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(("names", "said"), [((), "no Common Name,"), (("a", "b"), "2 Common Names,")])
def test_a_certificate_without_exactly_one_common_name_names_nobody(names: tuple[str, ...], said: str) -> None:
    with pytest.raises(IdentityError, match=said):
        certificate_name(sign(names).certificate)


@pytest.mark.parametrize("text", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_not_a_certificate_is_refused(text: bytes) -> None:
    with pytest.raises(IdentityError, match="not a PEM certificate"):
        parse_certificate(text)


@pytest.mark.parametrize(
    ("usages", "roles"),
    [
        ([ExtendedKeyUsageOID.SERVER_AUTH], {"server"}),
        ([ExtendedKeyUsageOID.CLIENT_AUTH], {"client"}),
        ([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH], {"server", "client"}),
        ([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE], set()),
    ],
)
def test_the_extended_key_usage_says_the_role(usages: list[x509.ObjectIdentifier], roles: set[str]) -> None:
    assert certificate_roles(sign("node", None, x509.ExtendedKeyUsage(usages)).certificate) == roles


def test_a_certificate_without_extended_key_usage_may_play_both_roles() -> None:
    assert certificate_roles(sign().certificate) == {"server", "client"}


@pytest.mark.parametrize("host", ["localhost", "rp.example.com", "*.example.com", "xn--bcher-kva.example", "a1-b"])
def test_dns_names_are_hosts(host: str) -> None:
    assert host_name(host) == x509.DNSName(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "2001:db8::2"])
def test_ip_addresses_are_hosts(host: str) -> None:
    assert isinstance(host_name(host), x509.IPAddress)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "http://a",
        "a:1234",
        "[::1]",
        "a b",
        "a_b",
        "-a",
        "a.",
        "a..b",
        "256.1.1.1",
        "bücher",
        "a.*.b",
        "*",
        "a\n",
        LONG_LABEL,
        LONG_NAME,
    ],
)
def test_what_no_client_could_dial_is_no_host(host: str) -> None:
    with pytest.raises(IdentityError, match="neither a DNS name nor an IP address"):
        host_name(host)


def test_a_chain_through_intermediates_leads_to_the_ca_in_whatever_order_they_come() -> None:
    root = sign("root", None, CA)
    upper = sign("upper", root, CA)
    lower = sign("lower", upper, CA)
    leaf = sign("node", lower)
    chain = [leaf.certificate, upper.certificate, lower.certificate]
    assert trust_path(chain, [root.certificate]) == [
        leaf.certificate,
        lower.certificate,
        upper.certificate,
        root.certificate,
    ]


def test_a_forged_signature_is_found_though_every_name_is_right() -> None:
    real, forged = sign("Some CA", None, CA), sign("Some CA", None, CA)
    with pytest.raises(IdentityError, match="another CA that has the same name, CN=Some CA"):
        trust_path([sign("node", forged).certificate], [real.certificate])


def test_a_node_cannot_issue_certificates_with_its_own() -> None:
    root = sign("root", None, CA)
    node = sign("node", root)
    with pytest.raises(IdentityError, match="its issuer is CN=node, the CA file holds CN=root"):
        trust_path([sign("victim", node).certificate, node.certificate], [root.certificate])


def test_certificates_that_sign_each_other_lead_nowhere_and_end() -> None:
    first = sign("first", None, CA)
    second = sign("second", first, CA)
    again = sign("first", second, CA, key=first.key)
    with pytest.raises(IdentityError, match="the CA file holds CN=other"):
        trust_path(
            [sign("node", second).certificate, second.certificate, again.certificate],
            [sign("other", None, CA).certificate],
        )


def test_one_of_several_cas_is_enough_so_that_a_ca_can_be_replaced() -> None:
    old, new = sign("old", None, CA), sign("new", None, CA)
    anchors = [old.certificate, new.certificate]
    for issuer in (old, new):
        assert trust_path([sign("node", issuer).certificate], anchors)[-1] == issuer.certificate
