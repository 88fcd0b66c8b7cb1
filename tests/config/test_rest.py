"""One mistake is one fault: nothing else in a good file is blamed for it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from headgate.config import ConfigInvalid, from_document, load

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "config"
ENV = {"SHOP_KEY": "x"}


def paths(value, loc=()):
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*loc, key)
            yield from paths(item, (*loc, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield (*loc, index)
            yield from paths(item, (*loc, index))


DOCUMENT = load(EXAMPLES / "full.yaml", ENV).document
PATHS = list(paths(DOCUMENT))
TRAFFIC = load(GOLDEN / "traffic-fine.yaml", {"SECRET": "x"}).document
PLACES = [(DOCUMENT, loc) for loc in PATHS] + [(TRAFFIC, loc) for loc in paths(TRAFFIC)]
KEYS = [(document, loc) for document, loc in PLACES if isinstance(loc[-1], str)]


def shown(part):
    return str(part) if isinstance(part, tuple) else "traffic" if part is TRAFFIC else "full"


def changed(loc, change, document=DOCUMENT):
    document = copy.deepcopy(document)
    around = document
    for part in loc[:-1]:
        around = around[part]
    change(around, loc[-1])
    return document


def faults_of(document):
    try:
        from_document(document)
    except ConfigInvalid as error:
        return error.faults
    return ()


def test_the_example_is_good():
    assert len(PATHS) > 100
    assert not faults_of(DOCUMENT)
    assert not faults_of(TRAFFIC)


@pytest.mark.parametrize("document, loc", KEYS, ids=shown)
def test_one_misspelt_key_is_one_fault(document, loc):
    def misspell(around, key):
        around[key[:-1] + "q"] = around.pop(key)

    faults = faults_of(changed(loc, misspell, document))
    told = [f"{fault.where}: {fault.message}" for fault in faults]
    # Names of services, headers and parameters are free. Of a key that is like no other nobody can
    # tell what it stands for, so what is missing is told beside it.
    about = [text for text in told if "unknown key" not in text]
    assert len(told) - len(about) <= 1
    if len(about) < len(told):
        missing = ("is required", "says nothing to do", "exactly one")
        assert all(any(words in text for words in missing) for text in about), told


@pytest.mark.parametrize("document, loc", PLACES, ids=shown)
def test_one_value_that_is_none_is_one_fault(document, loc):
    def spoil(around, key):
        around[key] = [[[]]]

    faults = faults_of(changed(loc, spoil, document))
    assert len(faults) == 1, [str(fault) for fault in faults]


@pytest.mark.parametrize("loc", [p for p in PATHS if len(p) == 2 and p[0] == "routes"], ids=str)
def test_a_route_with_a_misspelt_key_is_still_asked_where_it_leads(loc):
    def spoil(around, key):
        around[key] = {"match": {"path": "/"}, "to": "nowhere", "zzz": 1, "name": "spoilt"}

    told = {fault.where for fault in faults_of(changed(loc, spoil))}
    assert {f"routes[{loc[1]}].to", f"routes[{loc[1]}].zzz"} <= told


def test_the_same_mistake_in_many_places_is_told_for_each():
    document = copy.deepcopy(DOCUMENT)
    for route in document["routes"]:
        route["timout"] = 1
    told = [fault.where for fault in faults_of(document)]
    assert told == [f"routes[{index}].timout" for index in range(len(document["routes"]))]
