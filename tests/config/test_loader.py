from __future__ import annotations

import copy
import json
import pickle

import pytest

from headgate.config import Config, ConfigInvalid, from_document, load
from headgate.config import document as document_module
from headgate.config import loader as loader_module

ENV = {"PORT": "8080", "FLAG": "on", "TOKEN": "s3cret-token", "SERVICE": "users"}
SMALL = """
listeners: [0.0.0.0:8080]
services: {users: http://127.0.0.1:3001}
routes: [{to: users}]
"""


# -- what a file means --------------------------------------------------------------------


def test_a_small_file_makes_a_config_with_defaults(loads):
    config = loads(SMALL).config
    assert config.listeners[0].address == ("0.0.0.0", 8080, None)
    assert config.services["users"].instances[0].endpoint.authority == "127.0.0.1:3001"
    assert config.routes[0].to == "users"
    assert config.limits.body == 10 * 1024 * 1024
    assert config.admin.bind == "127.0.0.1:9900"


def test_the_document_makes_the_same_config_again(loads):
    loaded = loads(SMALL)
    assert from_document(json.loads(json.dumps(loaded.document))) == loaded.config


def test_the_dump_of_a_config_is_plain_data(loads):
    loaded = loads(SMALL + "trusted_proxies: [10.0.0.0/8]\n")
    assert json.loads(json.dumps(loaded.config.dump()))["trusted_proxies"] == ["10.0.0.0/8"]


@pytest.mark.parametrize(
    "written, meant",
    [
        ("no", "no"),
        ("off", "off"),
        ("on", "on"),
        ("y", "y"),
        ("1.10", "1.10"),
        ("0600", "0600"),
        ("0x1F", "0x1F"),
        ("22:22", "22:22"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("1e3", "1e3"),
        ("404", "404"),
        ("1.5", "1.5"),
        ("true", "true"),
        ("True", "True"),
        ("-0", "-0"),
        ("99999999999999999999999999", "99999999999999999999999999"),
        ("0.1000000000000000055", "0.1000000000000000055"),
        ('"null"', "null"),
        ("=", "="),
        ("!!str 5", "5"),
        ("é", "é"),
    ],
)
def test_text_is_kept_as_it_is_written(loads, written, meant):
    loaded = loads(SMALL + f"headers: {{response: {{set: {{x-value: {written}}}}}}}\n")
    assert loaded.config.headers is not None
    assert loaded.config.headers.response.set["x-value"] == meant


def test_words_of_yaml_1_1_are_keys_and_values_like_others(loads):
    loaded = loads("""
        listeners: [0.0.0.0:8080]
        admin: {bind: off}
        services: {on: http://127.0.0.1:1, no: http://127.0.0.1:2}
        routes: [{to: on}, {to: no, match: {path: /n}}]
        watch: yes
        response_time: Off
        """)
    assert set(loaded.config.services) == {"on", "no"}
    assert loaded.config.admin.bind == "off"
    assert loaded.config.watch is True
    assert loaded.config.response_time is False


def test_a_key_without_a_value_is_not_said(loads):
    loaded = loads(SMALL + "limits:\nadmin: ~\nerror_pages: null\n")
    assert loaded.config.limits.url == 8192


def test_short_forms_mean_the_long_ones(loads):
    short = loads("""
        listeners: [127.0.0.1:1, {bind: 127.0.0.1:2, tls: local}]
        services: {a: http://a, b: [http://b, http://c]}
        timeout: 5s
        compress: true
        plugins: [shop.filters:Stamp]
        routes:
          - {to: a, match: {host: A.example, methods: get, headers: {x-a: "1", x-b: ~^2$}}}
          - {to: b, rewrite: /x, match: {path: /b}}
          - {redirect: /y, match: {path: /c}}
          - {respond: 204, match: {path: /d}}
          - {respond: ok, match: {path: /e}, compress: off}
        """).config
    long = loads("""
        listeners:
          - bind: 127.0.0.1:1
          - bind: 127.0.0.1:2
            tls: {certificate: local}
        services:
          a: {instances: [{url: http://a}]}
          b: {instances: [{url: http://b}, {url: http://c}]}
        timeout: {first_byte: 5s}
        compress: {}
        plugins: [{use: "shop.filters:Stamp"}]
        routes:
          - to: a
            match:
              host: [a.example]
              methods: [GET]
              headers: {x-a: {equals: 1}, x-b: {regex: ^2$}}
          - {to: b, rewrite: {template: /x}, match: {path: /b}}
          - {redirect: {to: /y}, match: {path: /c}}
          - {respond: {status: 204}, match: {path: /d}}
          - {respond: {body: ok}, match: {path: /e}, compress: false}
        """).config
    assert short == long


def test_merge_keys_add_what_is_not_said(loads):
    loaded = loads("""
        listeners: [0.0.0.0:8080]
        services:
          a: &base {instances: [http://a], timeout: 5s, http: 2}
          b: {<<: *base, timeout: 9s}
          c: {<<: [{timeout: 1s}, *base]}
        routes: [{to: a}, {to: b, match: {path: /b}}, {to: c, match: {path: /c}}]
        """)
    services = loaded.config.services
    assert [services[name].timeout.first_byte for name in "abc"] == [5, 9, 1]
    assert {services[name].http for name in "abc"} == {"2"}


# -- names of routes ----------------------------------------------------------------------


def test_routes_get_readable_unique_names(loads):
    config = loads("""
        listeners: [0.0.0.0:8080]
        services: {users: http://127.0.0.1:3001}
        routes:
          - {match: {path: /api/users/, methods: [GET, PUT]}, to: users}
          - {match: {exact: /ping}, respond: 204}
          - {match: {host: "*.example.org", regex: "/x.*", headers: {x-beta: "1"}}, redirect: /y}
          - {match: {path: /q, query: {a: "1"}}, to: users}
          - {match: {path: /q, query: {a: "2"}}, to: users}
          - {match: {path: /q, query: {a: "3"}}, to: users, name: "/q ?a -> users #2"}
          - {to: users}
        """).config
    assert [route.name for route in config.routes] == [
        "GET,PUT /api/users/ -> users",
        "=/ping -> 204",
        "*.example.org~/x.* [x-beta] -> 308",
        "/q ?a -> users",
        "/q ?a -> users #3",
        "/q ?a -> users #2",
        "/* -> users",
    ]


def test_names_do_not_change_when_the_document_is_read_again(loads):
    loaded = loads(SMALL)
    again = from_document(loaded.document)
    assert [r.name for r in again.routes] == [r.name for r in loaded.config.routes]


# -- references ---------------------------------------------------------------------------


def test_references_stand_for_text_numbers_and_truth(loads, tmp_path):
    (tmp_path / "token.txt").write_text("from-a-file\r\n")
    loaded = loads("""
        listeners: ["0.0.0.0:${env:PORT}"]
        services: {users: "http://127.0.0.1:${env:PORT}"}
        routes: [{to: "${env:SERVICE}", priority: "${env:PORT}"}]
        watch: ${env:FLAG}
        workers: ${env:WORKERS:-3}
        drain: ${env:EMPTY:-}5s
        admin: {token: "${file:token.txt}-${env:TOKEN}"}
        request_id: {header: "x-${env:NOPE:-request}-id"}
        """)
    config = loaded.config
    assert config.listeners[0].address.port == 8080
    assert config.routes[0].priority == 8080
    assert config.watch is True
    assert config.workers == 3
    assert config.drain == 5.0
    assert config.admin.token == "from-a-file-s3cret-token"
    assert config.request_id.header == "x-request-id"
    assert [path.name for path in loaded.files] == ["headgate.yaml", "token.txt"]


def test_a_doubled_dollar_is_a_plain_one(loads):
    loaded = loads(SMALL + 'headers: {response: {set: {x-a: "$${env:PORT} $1 ${env:PORT}"}}}\n')
    assert loaded.config.headers.response.set["x-a"] == "${env:PORT} $1 8080"


def test_what_a_reference_brings_is_not_searched_again(write):
    write(headgate_yaml=SMALL + "admin: {token: '${env:OUTER}'}\n")
    loaded = load("headgate.yaml", {"OUTER": "${env:INNER}", "INNER": "x"})
    assert loaded.config.admin.token == "${env:INNER}"


def test_files_named_by_references_start_where_they_are_written(write):
    write(
        headgate_yaml="include: sub/more.yaml\n" + SMALL,
        sub__more_yaml="admin: {token: '${file:token}'}\naccess_log: {path: log}\n",
        sub__token="secret\n",
    )
    loaded = load("headgate.yaml", {})
    assert loaded.config.admin.token == "secret"
    assert loaded.config.access_log.path.endswith("/sub/log")


def test_a_pipe_is_no_file_to_wait_for(faults, tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    assert any(
        "not a regular file" in f for f in faults(SMALL + "admin: {token: '${file:pipe}'}\n")
    )


def test_a_reference_to_a_huge_file_is_refused(faults, tmp_path):
    (tmp_path / "huge").write_bytes(b"x" * (1 << 20) + b"x")
    assert any("larger than 1MB" in f for f in faults(SMALL + "admin: {token: '${file:huge}'}\n"))


def test_an_unset_variable_is_one_fault_and_no_echo(faults):
    (only,) = faults(SMALL + "drain: ${env:NOPE}\n")
    assert only == (
        "headgate.yaml:5:8: drain: the environment variable NOPE is not set; "
        "set it, or give a default: ${env:NOPE:-...}"
    )


# -- several files ------------------------------------------------------------------------


def test_lists_are_joined_and_mappings_merged(write):
    write(
        headgate_yaml="""
            include: [services.yaml, "routes/*.yaml"]
            listeners: [0.0.0.0:8080]
            limits: {url: 1KB}
            routes: [{name: own, match: {path: /own}, respond: 204}]
            """,
        services_yaml="services: {a: http://a}\nlimits: {body: 1MB}\n",
        routes__2_yaml="routes: [{name: two, match: {path: /2}, to: b}]\nservices: {b: http://b}\n",
        routes__1_yaml="routes: [{name: one, match: {path: /1}, to: a}]\n",
    )
    loaded = load("headgate.yaml", {})
    assert [route.name for route in loaded.config.routes] == ["own", "one", "two"]
    assert set(loaded.config.services) == {"a", "b"}
    assert (loaded.config.limits.url, loaded.config.limits.body) == (1024, 1 << 20)
    assert [path.name for path in loaded.files] == [
        "headgate.yaml",
        "services.yaml",
        "1.yaml",
        "2.yaml",
    ]
    assert "include" not in loaded.document


def test_a_directory_is_its_files_in_order(write):
    write(
        conf__b_yaml="routes: [{name: b, respond: 204}]\n",
        conf__a_yaml="listeners: [0.0.0.0:8080]\nroutes: [{name: a, respond: 204, priority: 1}]\n",
        **{"conf__c.yml": "drain: 5s\n", "conf__d.txt": "not: read\n", "conf__.hidden.yaml": "x"},
    )
    loaded = load("conf", {})
    assert [route.name for route in loaded.config.routes] == ["a", "b"]
    assert loaded.config.drain == 5.0
    assert str(loaded.config.state_dir).endswith("/conf/.headgate")


def test_a_pattern_does_not_take_in_the_file_that_says_it(write):
    write(headgate_yaml='include: "*.yaml"\n' + SMALL, more_yaml="drain: 5s\n")
    assert load("headgate.yaml", {}).config.drain == 5.0


def test_an_included_directory_is_its_files(write):
    write(headgate_yaml="include: more\n" + SMALL, more__x_yaml="drain: 5s\n")
    assert load("headgate.yaml", {}).config.drain == 5.0


def test_an_alias_is_not_changed_by_a_merge(write):
    write(
        headgate_yaml="""
            include: more.yaml
            listeners: [0.0.0.0:8080]
            routes:
              - respond: 204
                headers: &h {request: {set: {x-a: 1}}}
            headers: *h
            """,
        more_yaml="headers: {request: {set: {x-b: 2}}}\n",
    )
    config = load("headgate.yaml", {}).config
    assert config.headers is not None
    assert config.routes[0].headers is not None
    assert set(config.headers.request.set) == {"x-a", "x-b"}
    assert set(config.routes[0].headers.request.set) == {"x-a"}


@pytest.mark.parametrize(
    "name, said",
    [("nowhere.yaml", "cannot be read: no such file"), ("empty", "has no *.yaml files in it")],
)
def test_what_is_not_there_is_a_fault(tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigInvalid, match=r"nowhere|empty") as caught:
        load(name, {})
    assert said in str(caught.value)


# -- files named in the document ----------------------------------------------------------


def test_file_names_become_absolute(write, tmp_path):
    write(
        headgate_yaml="""
            include: tls/tls.yaml
            services: {users: {instances: https://u, tls: {ca_file: ca.pem}}}
            routes: [{to: users}]
            state_dir: state
            error_pages: {5xx: {file: sorry.html}}
            """,
        tls__tls_yaml="listeners: [{bind: 0.0.0.0:8443, tls: {cert_file: c.pem, key_file: k.pem}}]\n",
        tls__c_pem="",
        tls__k_pem="",
        ca_pem="",
        sorry_html="",
        **{"tls__c.pem": "", "tls__k.pem": "", "ca.pem": "", "sorry.html": ""},
    )
    config = load("headgate.yaml", {}).config
    assert config.listeners[0].tls is not None
    assert config.listeners[0].tls.cert_file == str(tmp_path / "tls" / "c.pem")
    assert config.services["users"].tls.ca_file == str(tmp_path / "ca.pem")
    assert config.error_pages["5xx"].file == str(tmp_path / "sorry.html")
    assert config.state_dir == str(tmp_path / "state")
    assert config.access_log.path == "stdout"


# -- hostile files ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{a: " * 100_000,
        "- " * 100_000,
        "? " * 100_000,
        "a: &a [" + "*a," * 1000 + "]",
        "a0: &a0 x\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 3000)),
        "a0: &a0 {x: 1}\n"
        + "".join(f"a{i}: &a{i} {{<<: *a{i - 1}}}\n" for i in range(1, 3000))
        + "<<: *a2999\n",
    ],
    ids=["flow", "map", "block", "question", "self", "chain", "merge-chain"],
)
def test_depth_is_bounded(faults, text):
    assert faults(text)


def test_a_billion_laughs_are_cut_short(faults, monkeypatch):
    monkeypatch.setattr(document_module, "MAX_VALUES", 10_000)
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
    )
    (only,) = faults(text)
    assert only == (
        "headgate.yaml: holds far too much once its aliases are followed; "
        "anchors within anchors multiply"
    )


@pytest.mark.parametrize(
    "data, said",
    [
        (b"a: \xff\n", "headgate.yaml:1:4: byte 0xff is not UTF-8"),
        (b"a: b\nc: \x00\n", "headgate.yaml:2:4: control character U+0000"),
        ("a: é\nb: \x1b[0m".encode(), "headgate.yaml:2:4: control character U+001B"),
        ("a: b".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (b"\x7fELF\x02\x01\x01\x00", "headgate.yaml:1:1: control character U+007F"),
        (b'a: "\\ud800"', "headgate.yaml:1:"),
    ],
)
def test_what_is_no_text_is_said_with_its_place(write, data, said):
    write(headgate_yaml=data)
    with pytest.raises(ConfigInvalid) as caught:
        load("headgate.yaml", {})
    assert said in str(caught.value)


def test_a_byte_order_mark_is_no_fault(write):
    write(headgate_yaml=b"\xef\xbb\xbf" + SMALL.encode())
    assert load("headgate.yaml", {}).config.routes


def test_faults_go_through_a_pickle(faults, write):
    write(headgate_yaml="listeners: 5\n")
    with pytest.raises(ConfigInvalid) as caught:
        load("headgate.yaml", {})
    assert pickle.loads(pickle.dumps(caught.value)).faults == caught.value.faults


# -- documents ----------------------------------------------------------------------------


DOCUMENT = {
    "listeners": ["0.0.0.0:8080"],
    "services": {"users": "http://127.0.0.1:3001"},
    "routes": [{"to": "users"}],
}


def test_a_document_is_checked_across_its_parts():
    bad = copy.deepcopy(DOCUMENT)
    bad["routes"] = [{"to": "usres"}]
    with pytest.raises(ConfigInvalid) as caught:
        from_document(bad, show_values=True)
    assert str(caught.value) == 'routes[0].to: no service named "usres"; did you mean "users"?'
    with pytest.raises(ConfigInvalid) as caught:
        from_document(bad)
    assert "usres" not in str(caught.value)


def test_a_document_is_not_changed():
    before = copy.deepcopy(DOCUMENT)
    from_document(DOCUMENT)
    assert before == DOCUMENT


def test_configs_are_frozen():
    config = from_document(DOCUMENT)
    with pytest.raises(ValueError):
        config.workers = 3  # type: ignore[misc]
    assert isinstance(config, Config)


def test_a_later_fault_gets_its_line(loads):
    loaded = loads("""
        listeners: [0.0.0.0:8080]
        routes:
          - respond: 204
            plugins: [{use: "a.b:C", options: {text: 5}}]
        """)
    fault = loaded.fault(("routes", 0, "plugins", 0, "options", "text"), "must be text")
    assert str(fault) == "headgate.yaml:5:46: routes[0].plugins[0].options.text: must be text"


# -- shared state -------------------------------------------------------------------------


@pytest.mark.parametrize("found, warnings", [(object(), 0), (None, 1)])
def test_a_missing_extra_is_warned_of_where_the_file_asks_for_it(
    loads, monkeypatch, found, warnings
):
    monkeypatch.setattr(loader_module, "find_spec", lambda name: found)
    told = loads(SMALL + "state: redis://localhost\n").warnings
    assert len(told) == warnings
    for fault in told:
        assert str(fault) == (
            'headgate.yaml:5:8: state: warning: needs the "redis" extra, which is not installed '
            'here; pip install "headgate[redis]"'
        )


def test_a_home_in_memory_asks_for_no_extra(loads, monkeypatch):
    monkeypatch.setattr(loader_module, "find_spec", lambda name: None)
    assert not loads(SMALL + "state: memory\n").warnings


@pytest.mark.parametrize(
    "url, warned",
    [
        ("redis://:hunter22@h", True),
        ("redis://joe:hunter22@h", True),
        ("unix:///run/r.sock?password=hunter22", True),
        ("redis://h:6379/0", False),
        ("redis://:${env:TOKEN}@h", False),
    ],
)
def test_a_password_that_stands_in_the_file_is_warned_of(loads, monkeypatch, url, warned):
    monkeypatch.setattr(loader_module, "find_spec", lambda name: object())
    told = loads(SMALL + f"state: {url}\n").warnings
    assert bool(told) is warned
    assert "hunter22" not in str(told)
