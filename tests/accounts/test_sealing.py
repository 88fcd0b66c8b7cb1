from __future__ import annotations

import pytest

from headgate.security.accounts.sealing import Sealer, Unsealable

OLD, NEW = "o" * 32, "n" * 32


class Hidden:
    def reveal(self) -> str:
        return OLD


def test_what_is_sealed_opens_for_the_same_row_only():
    sealer = Sealer([OLD])
    sealed = sealer.seal(b"plain", "totp 1")
    assert b"plain" not in sealed
    assert sealer.open(sealed, "totp 1") == b"plain"
    with pytest.raises(Unsealable, match="was changed"):
        sealer.open(sealed, "totp 2")
    assert sealer.seal(b"plain", "totp 1") != sealed


def test_a_secret_is_exchanged_by_putting_a_new_one_in_front():
    before, during, after = Sealer([OLD]), Sealer([NEW, OLD]), Sealer([NEW])
    sealed, mac = before.seal(b"x", "key"), before.mac("refresh", b"x")
    assert during.open(sealed, "key") == b"x"
    assert during.is_mac("refresh", b"x", mac)
    assert not during.is_newest(sealed)
    assert during.is_newest(during.seal(b"x", "key"))
    assert not after.is_mac("refresh", b"x", mac)
    with pytest.raises(Unsealable, match="another secret"):
        after.open(sealed, "key")


@pytest.mark.parametrize("at", [0, 1, 5, 17, -1])
def test_a_changed_byte_is_found(at):
    sealer = Sealer([OLD])
    sealed = bytearray(sealer.seal(b"plain", "x"))
    sealed[at] ^= 1
    with pytest.raises(Unsealable):
        sealer.open(bytes(sealed), "x")
    for short in (b"", b"\x01", bytes(sealed[:20])):
        with pytest.raises(Unsealable):
            sealer.open(short, "x")


def test_signatures_of_one_purpose_are_none_of_another():
    sealer = Sealer([Hidden()])
    assert not sealer.is_mac("device", b"x", sealer.mac("refresh", b"x"))
    assert sealer.mac("refresh", b"x") == Sealer([OLD]).mac("refresh", b"x")


@pytest.mark.parametrize("secret", ["short", b"x" * 31, ""])
def test_a_weak_secret_is_refused_and_not_shown(secret):
    with pytest.raises(ValueError, match="at least 32 bytes") as caught:
        Sealer([secret])
    assert "token_urlsafe" in str(caught.value)
    assert "short" not in str(caught.value)


def test_a_sealer_does_not_show_its_secrets():
    assert OLD not in repr(Sealer([OLD]))
