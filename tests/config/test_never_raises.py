"""Whatever the bytes: a Config, or a ConfigInvalid."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.config import ConfigInvalid, from_document
from headgate.config.model import Config
from headgate.config.walk import models_under
from tests.fuzz.fuzz_config import one

KEYS = sorted({name for model in models_under(Config) for name in model.model_fields})
WORDS = st.sampled_from(
    [
        "0.0.0.0:8080",
        "http://127.0.0.1:1",
        "/a/{b}",
        "5s",
        "1KB",
        "50%",
        "on",
        "~^a",
        "*.a.b",
        "[::]:1",
        "${env:NAME}",
        "${env:PORT}",
        "${file:headgate.yaml}",
        "${x",
        "$${",
        "users",
        "",
        "\n",
        "é",
        "a.b:C",
    ]
)
SCALARS = st.one_of(
    WORDS,
    st.text(max_size=8),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=5)), inner, max_size=5),
    ),
    max_leaves=20,
)
DOCUMENTS = st.dictionaries(st.sampled_from(sorted(Config.model_fields)), VALUES, max_size=6)


@given(st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_random_bytes(data):
    one(data)


YAML = st.text(alphabet="ab:-[]{},&*!|>'\"%@` #\n\t?<~0.$", max_size=60)


@given(YAML)
@settings(max_examples=300, deadline=None)
def test_random_yaml(text):
    one(text.encode())


@given(DOCUMENTS)
@settings(max_examples=300, deadline=None)
def test_random_documents_in_a_file(document):
    one(json.dumps(document).encode())


@given(DOCUMENTS)
@settings(max_examples=200, deadline=None)
def test_random_documents_from_a_caller(document):
    try:
        from_document(document)
    except ConfigInvalid as error:
        assert error.faults
