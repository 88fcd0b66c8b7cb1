"""One mistake is one fault: nothing else in a good file is blamed for it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from headgate.config import ConfigInvalid, from_document, load

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
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


def changed(loc, change):
    document = copy.deepcopy(DOCUMENT)
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


@pytest.mark.parametrize("loc", [p for p in PATHS if isinstance(p[-1], str)], ids=str)
def test_one_misspelt_key_is_one_fault(loc):
    def misspell(around, key):
        around[key[:-1] + "q"] = around.pop(key)

    told = [f"{fault.where}: {fault.message}" for fault in faults_of(changed(loc, misspell))]
    # Names of services, headers and parameters are free. Of a key that is like no other nobody can
    # tell what it stands for, so what is missing is told beside it.
    about = [text for text in told if "unknown key" not in text]
    assert len(told) - len(about) <= 1
    if len(about) < len(told):
        assert all("is required" in text or "says nothing to do" in text for text in about), told


@pytest.mark.parametrize("loc", PATHS, ids=str)
def test_one_value_that_is_none_is_one_fault(loc):
    def spoil(around, key):
        around[key] = [[[]]]

    faults = faults_of(changed(loc, spoil))
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
