"""RFC 7541, section by section, and against another implementation."""

from __future__ import annotations

import hpack
import pytest
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.table import HeaderTable
from hypothesis import given
from hypothesis import strategies as st

from headgate.wire.h2 import encode_passing, huffman
from headgate.wire.h2.hpack_decoder import BOMB_FACTOR, Decoder, HeaderBomb, HpackFault
from headgate.wire.h2.hpack_encoder import Encoder
from headgate.wire.h2.hpack_static import STATIC, NeverIndexed, encode_integer


def test_the_static_table_is_appendix_a():
    assert STATIC[1:] == HeaderTable.STATIC_TABLE
    assert STATIC[1] == (b":authority", b"")
    assert STATIC[61] == (b"www-authenticate", b"")


def test_the_huffman_codes_are_appendix_b():
    for symbol, bits in enumerate(huffman.CODES):
        assert (int(bits, 2), len(bits)) == (REQUEST_CODES[symbol], REQUEST_CODES_LENGTH[symbol])


# RFC 7541 C.1
@pytest.mark.parametrize(
    ("value", "prefix_bits", "octets"),
    [(10, 5, "0a"), (1337, 5, "1f9a0a"), (42, 8, "2a")],
)
def test_integers_of_appendix_c(value, prefix_bits, octets):
    assert encode_integer(value, prefix_bits, 0).hex() == octets


# RFC 7541 C.2
@pytest.mark.parametrize(
    ("octets", "fields", "table"),
    [
        (
            "400a637573746f6d2d6b65790d637573746f6d2d686561646572",
            ((b"custom-key", b"custom-header"),),
            ((b"custom-key", b"custom-header"),),
        ),
        ("040c2f73616d706c652f70617468", ((b":path", b"/sample/path"),), ()),
        ("100870617373776f726406736563726574", ((b"password", b"secret"),), ()),
        ("82", ((b":method", b"GET"),), ()),
    ],
)
def test_representations_of_appendix_c(octets, fields, table):
    decoder = Decoder()
    assert decoder.decode(bytes.fromhex(octets)).fields == fields
    assert decoder.table == table


def test_a_value_marked_never_indexed_keeps_its_mark():
    decoded = Decoder().decode(bytes.fromhex("100870617373776f726406736563726574"))
    ((name, value),) = decoded.fields
    assert isinstance(value, NeverIndexed)
    encoded = Encoder().encode(((name, value),))
    assert encoded[0] & 0xF0 == 0x10


# RFC 7541 C.3 and C.4: the same three requests without and with Huffman
REQUESTS = (
    (
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"www.example.com"),
    ),
    (
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"www.example.com"),
        (b"cache-control", b"no-cache"),
    ),
    (
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":path", b"/index.html"),
        (b":authority", b"www.example.com"),
        (b"custom-key", b"custom-value"),
    ),
)


@pytest.mark.parametrize(
    "blocks",
    [
        (
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ),
        (
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ),
    ],
)
def test_requests_of_appendix_c(blocks):
    decoder = Decoder()
    for block, fields in zip(blocks, REQUESTS, strict=True):
        assert decoder.decode(bytes.fromhex(block)).fields == fields
    assert decoder.table == (
        (b"custom-key", b"custom-value"),
        (b"cache-control", b"no-cache"),
        (b":authority", b"www.example.com"),
    )
    assert decoder.table_bytes == 164


# RFC 7541 C.5 and C.6: responses, with eviction from a table of 256 bytes
@pytest.mark.parametrize(
    "blocks",
    [
        (
            "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120"
            "474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d",
            "4803333037c1c0bf",
            "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738"
            "666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d33"
            "3630303b2076657273696f6e3d31",
        ),
        (
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad1718"
            "63c78f0b97c8e9ae82ae43d3",
            "4883640effc1c0bf",
            "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7"
            "b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
        ),
    ],
)
def test_responses_of_appendix_c(blocks):
    decoder = Decoder(table_bytes=256)
    statuses = [decoder.decode(bytes.fromhex(block)).fields[0][1] for block in blocks]
    assert statuses == [b"302", b"307", b"200"]
    assert decoder.table_bytes == 215
    assert decoder.table[0] == (
        b"set-cookie",
        b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
    )


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        ("80", "index 0"),
        ("be", "an index into an empty table"),
        ("ff80808080808001", "an integer without end"),
        ("40", "a literal that stops after its first octet"),
        ("400a6375", "a name beyond the end"),
        ("0f", "a name index that stops"),
        ("7e0161", "a name index beyond the table"),
        ("8220", "a size update after a field (4.2)"),
        ("3fe21f", "a size update to 4097"),
        ("3fffffff7f", "a size update to 2^28"),
        ("0001618449509fff", "a Huffman string padded by more than 7 bits"),
        ("000161874951fffffffa7f", "a Huffman string with EOS"),
        ("00016183495090", "a Huffman string padded with zeros"),
        ("0084ffffffff0161", "a Huffman string that is EOS and padding"),
    ],
)
def test_a_malformed_block_is_a_fault(octets, why):
    with pytest.raises(HpackFault):
        Decoder().decode(bytes.fromhex(octets))


def test_a_size_update_may_stand_at_the_beginning_more_than_once():
    decoder = Decoder()
    decoder.decode(bytes.fromhex("400a637573746f6d2d6b65790d637573746f6d2d686561646572"))
    assert decoder.decode(bytes.fromhex("203fe11f82")).fields == ((b":method", b"GET"),)
    assert decoder.table == ()


def test_an_entry_larger_than_the_table_empties_it():
    decoder = Decoder(table_bytes=64)
    decoder.decode(b"\x40\x01a\x01b")
    assert len(decoder.table) == 1
    decoder.decode(b"\x40\x01a\x28" + b"x" * 40)
    assert not decoder.table
    assert decoder.table_bytes == 0


def test_a_new_entry_may_take_its_name_from_the_one_it_evicts():
    """RFC 7541 4.4."""
    decoder = Decoder(table_bytes=64)
    decoder.decode(b"\x40\x04name\x08" + b"x" * 8)
    assert decoder.decode(b"\x7e\x1c" + b"y" * 28).fields == ((b"name", b"y" * 28),)
    assert decoder.table == ((b"name", b"y" * 28),)


def test_a_repeated_block_is_remembered_until_the_table_changes():
    decoder = Decoder()
    decoder.decode(b"\x40\x01a\x01b")
    first = decoder.decode(b"\xbe")
    assert decoder.decode(b"\xbe") is first
    decoder.decode(b"\x40\x01c\x01d")
    assert decoder.decode(b"\xbe").fields == ((b"c", b"d"),)
    decoder.decode(b"\x20")
    with pytest.raises(HpackFault):
        decoder.decode(b"\xbe")


def test_an_oversize_block_still_moves_the_table():
    decoder = Decoder(list_bytes=100)
    block = decoder.decode(b"\x82" * 10 + b"\x40\x01a\x01b")
    assert block.is_oversize
    assert len(block.fields) < 4
    assert decoder.table == ((b"a", b"b"),)


def test_a_bomb_ends_early():
    decoder = Decoder(list_bytes=65_536)
    decoder.decode(b"\x40\x01a\x7f\x81\x1f" + b"x" * 4096)
    decoder = Decoder(list_bytes=65_536)
    decoder.decode(b"\x40\x01a\x7f\x81\x1e" + b"x" * 3968)
    with pytest.raises(HeaderBomb):
        decoder.decode(b"\xbe" * 60_000)
    assert BOMB_FACTOR * 65_536 < 60_000 * 4001


def test_the_memory_of_blocks_is_bounded():
    decoder = Decoder()
    for n in range(2000):
        decoder.decode(b"\x04" + bytes((len(str(n)),)) + str(n).encode())
    assert len(decoder.kept) <= 64


# -- the encoder -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"authorization", b"cookie", b"set-cookie", b"x-api-key"])
def test_secrets_are_never_indexed(name):
    encoder = Encoder()
    for _ in range(3):
        block = encoder.encode(((name, b"s3cret"),))
        assert block[0] & 0xF0 == 0x10
    assert encoder.table == ()
    assert encode_passing(((name, b"s3cret"),))[0] & 0xF0 == 0x10


def test_a_field_enters_the_table_when_it_comes_again():
    encoder = Encoder()
    fields = ((b"x-a", b"1"), (b":status", b"200"))
    sizes = [len(encoder.encode(fields)) for _ in range(3)]
    assert encoder.table == ((b"x-a", b"1"),)
    assert sizes[2] == 2


def test_ids_do_not_enter_the_table():
    encoder = Encoder()
    for _ in range(3):
        encoder.encode(((b"x-request-id", b"1" * 32),))
    assert encoder.table == ()


def test_a_smaller_table_is_announced_at_the_next_block():
    encoder, decoder = Encoder(), hpack.Decoder()
    fields = ((b"x-a", b"1"),)
    for _ in range(2):
        decoder.decode(encoder.encode(fields))
    encoder.allow(0)
    encoder.allow(100)
    decoder.max_allowed_table_size = 100
    block = encoder.encode(fields)
    assert block[:1] == b"\x20"
    assert decoder.decode(block, raw=True) == list(fields)


def test_a_marked_value_is_not_sent_from_the_memory_of_its_plain_twin():
    encoder = Encoder()
    plain = ((b"x-a", b"1"),)
    for _ in range(3):
        encoder.encode(plain)
    marked = ((b"x-a", NeverIndexed(b"1")),)
    assert encoder.encode(marked)[0] & 0xF0 == 0x10
    assert encoder.encode(((b"x-a", b"1"),))[0] & 0x80


_name = st.sampled_from(
    [b"a", b"x-long-name", b":path", b"via", b"cookie", b"date", b"x-request-id"]
)
_value = st.one_of(st.sampled_from([b"", b"1", b"2", b"gzip"]), st.binary(max_size=200))
_fields = st.lists(st.tuples(_name, _value), max_size=8).map(tuple)
_steps = st.lists(st.one_of(_fields, st.integers(0, 8000)), max_size=30)


@given(_steps)
def test_what_we_encode_another_decoder_reads(steps):
    encoder, theirs, ours = Encoder(), hpack.Decoder(), Decoder(list_bytes=1 << 20)
    theirs.max_header_list_size = 1 << 20
    for step in steps:
        if isinstance(step, int):
            encoder.allow(step)
            theirs.max_allowed_table_size = step
        else:
            block = encoder.encode(step)
            assert tuple(theirs.decode(block, raw=True)) == step
            assert ours.decode(block).fields == step
            assert ours.table == encoder.table


@given(st.lists(_fields, max_size=10))
def test_heads_and_what_passes_once_read_as_one_block(heads):
    encoder, theirs = Encoder(), hpack.Decoder()
    theirs.max_header_list_size = 1 << 20
    for fields in heads * 2:
        block = encoder.encode_response(418, fields) + encode_passing(fields)
        assert tuple(theirs.decode(block, raw=True)) == ((b":status", b"418"), *fields, *fields)


@given(_steps, st.booleans())
def test_what_another_encoder_says_we_read(steps, packed):
    theirs, ours = hpack.Encoder(), Decoder(list_bytes=1 << 20)
    for step in steps:
        if isinstance(step, int):
            theirs.header_table_size = min(step, 4096)
        else:
            assert ours.decode(theirs.encode(list(step), huffman=packed)).fields == step


@given(st.binary(max_size=300))
def test_huffman_round_trips(data):
    assert huffman.decode(huffman.encode(data)) == data


@given(st.binary(max_size=200))
def test_huffman_agrees_with_another_implementation_on_any_bytes(data):
    from hpack.exceptions import HPACKDecodingError
    from hpack.huffman_table import decode_huffman

    try:
        expected = decode_huffman(data)
    except HPACKDecodingError:
        expected = None
    try:
        ours = huffman.decode(data)
    except huffman.HuffmanFault:
        ours = None
    assert ours == expected


@given(st.binary(max_size=400))
def test_any_bytes_decode_or_fault(data):
    decoder = Decoder(list_bytes=4096)
    try:
        decoder.decode(data)
    except (HpackFault, HeaderBomb):
        return
    assert decoder.table_bytes <= 4096
