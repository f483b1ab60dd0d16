"""The command line on a real embedded directory: what it prints, as tables and as JSON, and how it ends."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from polystore.cli.app import app

MODELS = """
from dataclasses import dataclass, field
from typing import Annotated
from polystore import Embedding, FullText, Relation, Unique, entity

@entity()
@dataclass(kw_only=True)
class Person:
    id: int
    email: Annotated[str, Unique()]

@entity(name="note")
@dataclass(kw_only=True)
class CliNote:
    id: str
    text: Annotated[str, FullText(), Embedding()]
    stars: int = 0
    about: Annotated[list[str], Relation("ABOUT", to="Person")] = field(default_factory=list)
"""
NOTES = [
    {"id": "a", "text": "학교에서 만난 친구", "stars": 3},
    {"id": "b", "text": "바다에 가고 싶다", "stars": 5},
    {"id": "c", "text": "memories of the sea", "about": ["1"]},
]
PARK = (
    "INSERT INTO ps_retry (target, tenant, etype, id, h, version, min_version, state, attempts, hard_fails, first_us, "
    "next_us, error_class, error) SELECT 'vector', '', 'note', id, ps_h, ps_version, ps_version, 'p', 3, 3, 1, 1, "
    "'permanent:InvalidData', 'refused' FROM note WHERE id = 'a'"
)
"""A dead letter of the record `a`."""
Cli = Callable[..., Result]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """`polystore` in a folder of its own, with a configuration and an application's module."""
    monkeypatch.chdir(tmp_path)
    module = f"models_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(MODELS, encoding="utf-8")
    (tmp_path / "notes.jsonl").write_text(
        "".join(json.dumps(note, ensure_ascii=False) + "\n" for note in NOTES), encoding="utf-8"
    )
    runner = CliRunner()

    def call(*arguments: str, code: int = 0, text: str | None = None) -> Result:
        result = runner.invoke(app, list(arguments), input=text)
        assert result.exit_code == code, result.output + result.stderr
        return result

    call("init", module)
    return call


def answer(result: Result) -> Any:
    return json.loads(result.stdout)


def test_a_folder_without_a_configuration_is_told_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POLYSTORE_CONFIG", raising=False)
    result = CliRunner().invoke(app, ["status"])
    assert result.exit_code == 2
    assert "no polystore.toml is here" in result.stderr
    assert "`polystore init`" in result.stderr


def test_the_version_is_that_of_the_distribution() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.stdout == f"polystore {importlib.metadata.version('polystore-hybrid')}\n"


def test_init_writes_a_configuration_that_works_and_replaces_none(cli: Cli, tmp_path: Path) -> None:
    cli("check")
    before = (tmp_path / "polystore.toml").read_text(encoding="utf-8")
    assert "--force" in cli("init", "other", code=2).stderr
    assert (tmp_path / "polystore.toml").read_text(encoding="utf-8") == before
    cli("init", "other", "--force", "--url", "sqlite:one.db")
    assert 'url = "sqlite:one.db"' in (tmp_path / "polystore.toml").read_text(encoding="utf-8")


def test_check_asks_every_store(cli: Cli) -> None:
    rows = answer(cli("--json", "check"))
    assert [row["store"] for row in rows] == [
        *("home", "full_text", "vector", "graph", "facts", "state", "files"),
        "embed:hashed-characters-1:256",
    ]
    assert all(row["answers"] for row in rows)
    assert {row["server"] for row in rows} == {"sqlite", "file", "hashed"}


def test_import_goes_on_where_it_stopped_and_finds_nothing_to_do_the_second_time(cli: Cli) -> None:
    assert answer(cli("--json", "import", "note", "notes.jsonl"))["written"] == 3
    again = answer(cli("--json", "import", "note", "notes.jsonl"))
    assert (again["written"], again["skipped"]) == (0, 3)


def test_import_of_a_csv_file_converts_its_texts(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("id,email\n1,a@example.org\n2,b@example.org\n", encoding="utf-8-sig")
    cli("import", "person", "people.csv")
    assert answer(cli("--json", "get", "person", "2"))["email"] == "b@example.org"


def test_import_says_which_record_does_not_fit(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"id": "x", "text": "good"}\n{"id": "y"}\n', encoding="utf-8")
    assert "bad.jsonl, line 2: " in cli("import", "note", "bad.jsonl", code=2).stderr


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "bad.jsonl",
            '{"id": "x", "text": "a"}\n\n{"id": "y", "text": "b", "star": 1}\n',
            "line 3: CliNote has no",
        ),
        ("bad.csv", "id,text,star\nx,a,\n", "line 2: CliNote has no"),
    ],
)
def test_import_loses_nothing_silently(cli: Cli, tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    refused = cli("import", "note", name, code=2).stderr
    assert words in refused
    assert "did you mean 'stars'" in refused
    assert "--ignore-unknown" in refused
    before = len(answer(cli("--json", "find", "note"))["records"])
    report = answer(cli("--json", "import", "note", name, "--ignore-unknown"))
    assert report["rejected"] == 0
    assert len(answer(cli("--json", "find", "note"))["records"]) == report["read"] > before


def test_import_collects_records_that_cannot_be_converted(cli: Cli, tmp_path: Path) -> None:
    lines = ['{"id": "a", "text": "x"}', '{"id": "b"}', "no JSON", '{"id": "c", "text": "y", "more": 1}', '{"id": 7}']
    last = '{"id": "d", "text": "z"}'
    (tmp_path / "mixed.jsonl").write_text("\n".join([*lines, last]) + "\n", encoding="utf-8")
    report = answer(cli("--json", "import", "note", "mixed.jsonl", "--on-error", "collect", code=1))
    assert (report["read"], report["written"], report["rejected"]) == (6, 2, 4)
    assert [position for position, _ in report["errors"]] == [1, 2, 3, 4]
    assert [row["id"] for row in answer(cli("--json", "find", "note"))["records"]] == ["a", "d"]
    (tmp_path / "again.jsonl").write_text("\n".join([*lines, last]) + "\n", encoding="utf-8")
    said = cli("import", "note", "again.jsonl", "--on-error", "collect", code=1).stdout
    assert "rejected, record 2: again.jsonl, line 2: Object missing required field `text`" in said
    assert "rejected, record 3: again.jsonl, line 3: this is no JSON object" in said


def test_files_that_cannot_be_used_are_refused_in_words(cli: Cli, tmp_path: Path) -> None:
    for name in ("old.csv", "old.jsonl"):
        (tmp_path / name).write_bytes('id,text\nx,"학교"\n'.encode("euc-kr"))
        refused = cli("import", "note", name, code=2).stderr
        assert f"{name}, behind line 0: this is no utf-8" in refused
        assert "cp949" in refused
    assert "cannot be written" in cli("-c", "no/such/place.toml", "init", "models", code=2).stderr


def test_an_interrupted_import_goes_on_where_it_stopped(cli: Cli, tmp_path: Path) -> None:
    count = 20_000
    with (tmp_path / "many.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"id": f"n{i}", "text": f"word{i % 100}"}) + "\n" for i in range(count))
    program = Path(sys.executable).with_name("polystore")
    with subprocess.Popen(
        [program, "import", "note", "many.jsonl"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as importing:
        until = time.monotonic() + 60
        while written(tmp_path / "data/home.db") == 0 and time.monotonic() < until:
            time.sleep(0.01)
        importing.send_signal(signal.SIGINT)
        _, errors = importing.communicate(timeout=60)
    assert importing.returncode == 130, errors
    assert errors.decode() == "interrupted; what was committed is kept, and the next start goes on from there\n"
    done = written(tmp_path / "data/home.db")
    assert 0 < done < count
    report = answer(cli("--json", "import", "note", "many.jsonl"))
    assert report["skipped"] == done
    assert report["written"] == count - done
    verified = answer(cli("--json", "verify"))
    assert (verified["differences"], verified["compared"]) == (0, 3 * count)


def written(home: Path) -> int:
    """How many notes are committed; none before the table is there."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{home}?mode=ro", uri=True)) as db:
            (found,) = db.execute("SELECT count(*) FROM note").fetchone()
    except sqlite3.OperationalError:
        return 0
    return int(found)


def test_progress_is_shown_to_terminals_only(cli: Cli) -> None:
    for command in (("import", "note", "notes.jsonl"), ("verify",)):
        assert cli(*command).stderr == ""


def test_a_url_and_the_modules_of_entities_need_no_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "polystore.toml").rename(tmp_path / "other.toml")
    (tmp_path / "mymodels.py").write_text(MODELS, encoding="utf-8")
    url = ("-c", "sqlite:x.db")
    assert "--entities MODULE" in cli(*url, "status", code=2).stderr
    assert "no module 'nomodels'" in cli(*url, "-e", "nomodels", "status", code=2).stderr
    cli(*url, "-e", "mymodels", "status")
    assert answer(
        cli(*url, "-e", "mymodels:CliNote", "-e", "mymodels:Person", "import", "note", "notes.jsonl", "--json")
    )
    assert answer(cli(*url, "-e", "mymodels", "get", "note", "a", "--json"))["stars"] == 3


def test_json_may_stand_behind_the_command(cli: Cli) -> None:
    assert answer(cli("status", "--json"))["homes"]
    assert answer(cli("dlq", "list", "--json")) == []
    assert cli("search", "--", "note", "--json").stdout == "nothing found\n"


def test_verify_counts_the_comparisons_of_all_tenants(cli: Cli) -> None:
    cli("import", "note", "notes.jsonl")
    cli("--tenant", "acme", "import", "note", "notes.jsonl")
    assert answer(cli("--json", "verify"))["compared"] == 18


def test_records_are_found_by_key_condition_words_and_likeness(cli: Cli) -> None:
    cli("import", "note", "notes.jsonl")
    assert answer(cli("--json", "get", "note", "a"))["text"] == "학교에서 만난 친구"
    found = answer(cli("--json", "find", "note", "--where", "stars>=3", "--order", "-stars"))
    assert [row["id"] for row in found["records"]] == ["b", "a"]
    page = answer(cli("--json", "find", "note", "--limit", "2"))
    rest = answer(cli("--json", "find", "note", "--limit", "2", "--cursor", page["cursor"]))
    assert [row["id"] for row in page["records"] + rest["records"]] == ["a", "b", "c"]
    (hit,) = answer(cli("--json", "search", "note", "친구"))
    assert (hit["id"], hit["highlights"]) == ("a", {"text": ["학교에서 만난 <mark>친구</mark>"]})
    assert answer(cli("--json", "search", "note", "memor", "-w", "about~1"))[0]["id"] == "c"
    assert answer(cli("--json", "similar", "note", "바다에 가고 싶어", "--limit", "1"))[0]["id"] == "b"
    assert "바다에 가고 싶다" in cli("find", "note").stdout


def test_no_such_record_is_exit_code_1_and_bad_input_2(cli: Cli) -> None:
    assert "does not exist" in cli("get", "note", "nobody", code=1).stderr
    assert "did you mean" in cli("find", "note", "-w", "star=1", code=2).stderr
    assert "known: note, person" in cli("get", "memo", "a", code=2).stderr
    assert "'x'" in cli("get", "person", "x", code=2).stderr
    assert "no file" in cli("-c", "nowhere.toml", "check", code=2).stderr


def test_explain_says_home_copies_and_why(cli: Cli) -> None:
    text = cli("explain", "note").stdout
    assert "full_text (copy)" in text
    assert "why" in text
    assert answer(cli("--json", "explain"))["note"]["copies"] == {
        "full_text": ["full_text"],
        "graph": ["graph"],
        "vector": ["vector"],
    }


def test_verify_finds_what_somebody_changed_by_hand(cli: Cli, tmp_path: Path) -> None:
    cli("import", "note", "notes.jsonl")
    assert answer(cli("--json", "verify"))["differences"] == 0
    by_hand(tmp_path / "data/vector.db", "UPDATE note SET text = 'other' WHERE id = 'a'")
    by_hand(tmp_path / "data/graph.db", "DELETE FROM note WHERE id = 'c'")
    by_hand(tmp_path / "data/full_text.db", "UPDATE note SET ps_version = ps_version - 1 WHERE id = 'b'")
    report = answer(cli("--json", "verify", code=1))
    problems = {(row["store"], row["key"], row["problem"]) for row in report["shown"]}
    assert problems == {("vector", "a", "content"), ("graph", "c", "missing"), ("full_text", "b", "older")}
    assert "3 differences" in cli("verify", code=1).stdout


def test_repair_mends_what_somebody_changed_by_hand(cli: Cli, tmp_path: Path) -> None:
    cli("import", "note", "notes.jsonl")
    by_hand(tmp_path / "data/vector.db", "UPDATE note SET text = 'other' WHERE id = 'a'")
    by_hand(tmp_path / "data/graph.db", "DELETE FROM note WHERE id = 'c'")
    looked = answer(cli("repair", "--dry-run", "--json", code=1))
    assert (looked["left"], looked["mended"], len(looked["shown"])) == (2, {}, 2)
    assert "0 repaired" in cli("repair", "note", "full_text").stdout
    assert "2 repaired (1 content, 1 missing), 0 left" in cli("repair", "note").stdout
    assert answer(cli("--json", "verify"))["differences"] == 0
    by_hand(tmp_path / "data/graph.db", "UPDATE note SET ps_version = ps_version + 1 WHERE id = 'a'")
    assert "epoch bump" in answer(cli("repair", "graph", "--json", code=1))["shown"][0]["detail"]
    assert "did you mean 'graph'" in cli("repair", "grahp", code=2).stderr


def by_hand(path: Path, statement: str) -> None:
    db = sqlite3.connect(path)
    db.create_collation("ps_decimal", lambda a, b: (a > b) - (a < b))
    with db:
        assert db.execute(statement).rowcount == 1
    db.close()


def test_verify_passes_over_what_has_no_copies(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "states.py").write_text(
        "from dataclasses import dataclass\nfrom polystore import entity\n\n"
        '@entity(data_type="session")\n@dataclass\nclass Session:\n    id: str\n'
    )
    assert answer(cli("-c", "sqlite:x.db", "-e", "states", "verify", "--json"))["compared"] == 0
    assert "0 differences" in cli("-c", "sqlite:x.db", "-e", "states", "verify", "session").stdout


def test_status_shows_what_is_owed_and_the_dead_letters_can_be_tried_again(cli: Cli, tmp_path: Path) -> None:
    cli("import", "note", "notes.jsonl")
    cli("dlq", "list")
    by_hand(tmp_path / "data/home.db", PARK)
    copies = {row["copy"]: row for row in answer(cli("--json", "status"))["copies"]}
    assert len(copies) == 3
    assert copies["vector"]["dead letters"] == 1
    assert copies["graph"]["entities"] == {"note": "active"}
    assert "note: active" in cli("status").stdout
    assert [row["key"] for row in answer(cli("--json", "dlq", "list", code=1))] == ["a"]
    assert "permanent:InvalidData" in cli("--json", "dlq", "show", "note", "a").stdout
    assert answer(cli("--json", "dlq", "retry", "note", "a"))["count"] == 1
    cli("verify")  # settles: the letter is delivered and gone
    by_hand(tmp_path / "data/home.db", PARK)
    cli("dlq", "drop", code=2, text="n\n")
    cli("dlq", "drop", "note", "a", text="y\n")
    cli("dlq", "list")
    cli("dlq", "retry", code=1)


def test_dead_letters_are_named_as_records_are_by_entity_key_and_tenant(cli: Cli, tmp_path: Path) -> None:
    cli("import", "note", "notes.jsonl")
    by_hand(tmp_path / "data/home.db", PARK)
    assert [row["tenant"] for row in answer(cli("--json", "dlq", "show", "CliNote", "a"))] == [""]
    cli("--tenant", "acme", "dlq", "show", "CliNote", "a", code=1)
    cli("--tenant", "acme", "dlq", "drop", "--yes", "CliNote", "a", code=1)
    assert "known: note, person" in cli("dlq", "show", "nobody", "a", code=2).stderr
    assert "known: note, person" in cli("dlq", "retry", "nobody", "a", code=2).stderr
    assert "a key is a int" in cli("dlq", "drop", "--yes", "Person", "x", code=2).stderr
    assert answer(cli("--json", "dlq", "drop", "--yes", "CliNote", "a"))["count"] == 1
    cli("dlq", "list")


def test_records_of_a_tenant_are_seen_by_its_name_only(cli: Cli) -> None:
    cli("--tenant", "acme", "import", "note", "notes.jsonl")
    assert answer(cli("--json", "find", "note"))["records"] == []
    assert len(answer(cli("--json", "--tenant", "acme", "find", "note"))["records"]) == 3


def test_the_installed_program_explains_itself() -> None:
    program = Path(sys.executable).with_name("polystore")
    done = subprocess.run([program, "--help"], capture_output=True, text=True, check=True, timeout=60)
    for name in (
        "init",
        "check",
        "explain",
        "status",
        "get",
        "find",
        "search",
        "similar",
        "import",
        "export",
        "verify",
        "dlq",
    ):
        assert name in done.stdout
    assert "Exit codes" in done.stdout
