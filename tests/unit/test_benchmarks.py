"""That the benchmarks run, and tell the truth about what they measured. Never how fast anything is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import peers
from benchmarks.command import main
from benchmarks.contestants import big
from benchmarks.figure import MET, MISSED, UNKNOWN, Figure, Row, absent, ratio, scaled, shown
from benchmarks.report import Report, to_markdown, to_terminal
from benchmarks.rows.columns import Columns
from benchmarks.stage import Contestant, Performer, Play, Stage, Stuck

ROOT = Path(__file__).parents[2]


def test_a_quick_run_measures_headway_and_says_what_is_missing(tmp_path: Path) -> None:
    results = tmp_path / "results.md"
    command = ["--quick", "--only", "S7", "--no-peers", "--json"]
    places = ["--dir", str(tmp_path / "disk"), "--results", str(results)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *command, *places],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["command"] == f"python -m benchmarks {' '.join(command)}"
    (row,) = report["rows"]
    by_name = {figure["name"]: figure for figure in row["figures"]}
    assert row["row"] == "S7"
    assert not row["error"]
    assert by_name["headway, checkpoint.write"]["median"] > 0
    assert len(by_name["headway ÷ the limit"]["values"]) == 2
    flytekit = next(figure for name, figure in by_name.items() if name.startswith("flytekit"))
    assert flytekit["values"] == []
    assert flytekit["note"] == "not measured: --no-peers"
    text = results.read_text(encoding="utf-8")
    assert "these figures only show that everything runs" in text
    assert str(tmp_path) not in text
    assert list((tmp_path / "disk").iterdir()) == []


def quick_rows(place: Path, keys: str) -> dict[str, dict[str, object]]:
    """Rows of large states, measured with small ones and without peers: key -> figures by name."""
    command = ["--quick", "--only", keys, "--no-peers", "--json", "--dir", str(place)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["row"] for row in rows] == keys.split(",")
    assert list(place.iterdir()) == []
    return {row["row"]: {each["name"]: each for each in row["figures"]} for row in rows}


def targets_measured(figures: dict[str, object]) -> dict[str, bool]:
    """Whether there is a value, for each figure of headway's own that has a target."""
    held = [figure for figure in figures.values() if isinstance(figure, dict) and figure["target"]]
    peers_absent = "not measured: --no-peers"
    return {each["name"]: bool(each["values"]) for each in held if each["note"] != peers_absent}


def test_what_a_second_save_writes_is_measured(tmp_path: Path) -> None:
    figures = quick_rows(tmp_path, "S9")["S9"]
    measured = targets_measured(figures)
    assert len(measured) == 6
    assert all(measured.values())


@pytest.mark.slow
def test_the_rows_of_large_states_run_without_peers(tmp_path: Path) -> None:
    rows = quick_rows(tmp_path, "S1,S2,S3,S4,S5,S6,S8,S10,S11,S13")
    for key, figures in rows.items():
        measured = targets_measured(figures)
        lacking = {name for name, there in measured.items() if not there}
        beside_a_step = {
            name for name in lacking if "PyTorch" in name
        }  # says itself that it is not there
        assert measured, key
        assert lacking == beside_a_step, key


def test_a_figure_counts_by_its_median() -> None:
    figure = scaled("x", "ms", [0.001, 0.009, 0.002], target=2.0)
    assert (figure.low, figure.median, figure.high) == (1.0, 2.0, 9.0)
    assert figure.verdict == MET
    assert scaled("x", "ms", [0.001, 0.009, 0.0021], target=2.0).verdict == MISSED
    assert absent("x", "ms", "not there", target=2.0).verdict == UNKNOWN


def test_a_ratio_pairs_the_rounds_that_both_took_part_in() -> None:
    assert ratio("x", [2.0, 9.0, 5.0], [1.0, 3.0]).values == (2.0, 3.0)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.234, "×", "1.23 ×"),
        (56.78, "ms", "56.8 ms"),
        (1234.5, "µs", "1,234 µs"),
        (7.0, "modules", "7 modules"),
    ],
)
def test_values_are_shown_with_the_digits_that_mean_something(
    value: float, unit: str, text: str
) -> None:
    assert shown(value, unit) == text


def report_of(*figures: Figure, error: str = "") -> Report:
    row = Row("E1", "A task", "How.", figures, error)
    return Report(
        "make bench", "2026-01-02", False, {"kernel": "Linux"}, {"ray": "2"}, (row,), 90.0
    )


def test_the_results_name_what_was_missed_and_what_was_not_measured() -> None:
    text = to_markdown(
        report_of(
            scaled("fast", "ms", [0.001], target=2.0),
            scaled("slow", "ms", [0.003], target=2.0),
            absent("gone", "ms", "not installed: no such version", target=2.0),
        )
    )
    assert "1 of 3 targets met; missed: E1 slow; 1 not measured." in text
    assert "| slow | 3.00 ms | 3.00 ms | 3.00 ms | 1 | ≤ 2.00 ms | missed |" in text
    assert "- gone: not installed: no such version" in text
    assert "Not measured: it broke" in to_markdown(report_of(error="it broke"))


def test_the_terminal_shows_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    to_terminal(report_of(scaled("slow [x]", "ms", [0.003], target=2.0), error="it broke"))
    said = capsys.readouterr().out
    assert "slow [x]" in said
    assert "missed" in said
    assert "not measured: it broke" in said


def test_an_unknown_row_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "S7,E99"])
    assert "no row E99" in capsys.readouterr().err


def test_the_rows_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    keys = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    readme = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert keys == [line.split()[1] for line in readme.splitlines() if line[:3] in {"| S", "| E"}]


def test_a_peer_that_cannot_be_installed_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = tmp_path / "requirements.txt"
    wanted.write_text("# peers\nray==2  # why\n    numpy<3\nprefect==3\n", encoding="utf-8")
    monkeypatch.setattr(peers, "REQUIREMENTS", wanted)
    monkeypatch.setattr(peers, "BENCH", tmp_path)
    assert peers.requirements() == [["ray==2", "numpy<3"], ["prefect==3"]]

    def refuse(command: tuple[str, ...], **_: object) -> None:
        stderr = "WARNING: hm\nERROR: No matching distribution found\nhint"
        raise subprocess.CalledProcessError(1, command, stderr=stderr)

    monkeypatch.setattr(subprocess, "run", refuse)
    said: list[str] = []
    found = peers.peers(said.append)
    assert found["ray"].why_not == "not installed: No matching distribution found"
    assert len(said) == 2


class NoOrphans:
    """Stands in for `Orphans`, which would end what other tests of this process started."""

    def end(self) -> None:
        """Leave everything alone."""


def stage_at(place: Path) -> Stage:
    absent_peer = peers.Peer("ray", why_not="not installed: no wheel")
    return Stage(place, {"ray": absent_peer}, True, False, lambda _: None, NoOrphans())


def test_what_two_rows_need_is_measured_once(tmp_path: Path) -> None:
    stage, numbers = stage_at(tmp_path), iter([1, 2])
    assert [stage.once("a", lambda: next(numbers)) for _ in range(2)] == [1, 1]
    assert stage.once("b", lambda: 7) == 7


def test_a_debut_is_the_first_turn_of_a_fresh_process(tmp_path: Path) -> None:
    stage = stage_at(tmp_path)
    cast = {
        "copy": Play("limits", "copy", {"layers": 1}),
        "ray": Play("ray_peer", "chain", {}, peer="ray"),
    }
    measured, missing = stage.debuts(cast, 2)
    assert len(measured["copy"]) == 2
    assert missing == {"ray": "not installed: no wheel"}
    assert list(tmp_path.iterdir()) == []


def test_columns_show_who_is_missing_and_compare_the_others() -> None:
    found = Columns({"we": [[2.0, 9.0], [4.0, 9.0]], "limit: x": [[1.0], [4.0]]}, {"peer": "none"})
    assert found.figure("we", "ms", 1).values == (9000.0, 9000.0)
    assert found.figure("we", "MiB").values == (2.0 / 2**20, 4.0 / 2**20)
    there, gone = found.ratios("we", {"limit: x": 1.0, "peer": None})
    assert (there.name, there.values, there.verdict) == ("we ÷ limit", (2.0, 1.0), MISSED)
    assert (gone.values, gone.note) == ((), "none")


def test_a_state_that_was_not_restored_is_found_out() -> None:
    live = big.blank(2)
    with pytest.raises(AssertionError, match=r"0\.in was not restored"):
        big.prove_equal(live, 2)
    for name, weights in big.state(2, version=3).items():
        live[name][...] = weights
    big.prove_equal(live, 2, version=3)
    with pytest.raises(AssertionError):
        big.prove_equal(live, 2, version=4)


def test_the_most_memory_is_that_of_the_block_and_not_of_before() -> None:
    held = bytearray(64 << 20)
    peak = big.Peak()
    more = b"x" * (32 << 20)
    assert 32 << 20 <= peak.more() < len(held)
    del more


def test_performers_take_turns_and_the_first_round_does_not_count(tmp_path: Path) -> None:
    order: list[str] = []

    def named(name: str) -> Performer:
        def round_() -> list[float]:
            order.append(name)
            return [float(len(order))]

        return Performer(round_, rounds=1 if name == "b" else 0)

    measured, missing = stage_at(tmp_path).take_turns({n: named(n) for n in "abc"}, 2)
    assert "".join(order) == "abcabcac"
    assert measured == {"a": [[4.0], [7.0]], "b": [[5.0]], "c": [[6.0], [8.0]]}
    assert missing == {}


def test_a_peer_that_fails_is_missing_and_headway_failing_is_an_error(tmp_path: Path) -> None:
    calls = 0

    def fails_later() -> list[float]:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise Stuck("it failed:\nout of memory")
        return [1.0]

    def fine() -> list[float]:
        return [2.0]

    stage = stage_at(tmp_path)
    cast = {"peer": Performer(fails_later, ours=False), "ours": Performer(fine)}
    measured, missing = stage.take_turns(cast, 2)
    assert measured == {"ours": [[2.0], [2.0]]}
    assert missing == {"peer": "failed: out of memory"}
    with pytest.raises(Stuck, match="out of memory"):
        stage.take_turns({"ours": Performer(fails_later)}, 2)


def test_contestants_play_in_places_of_their_own_and_absent_peers_say_why(tmp_path: Path) -> None:
    stage = stage_at(tmp_path)
    cast = {
        "call": Play("files", "call", {"tasks": 3}),
        "ray": Play("ray_peer", "chain", {}, peer="ray"),
    }
    measured, missing = stage.play(cast, 1)
    assert measured["call"][0][0] > 0
    assert missing == {"ray": "not installed: no wheel"}
    assert list(tmp_path.iterdir()) == []


def test_a_contestant_that_ends_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(Stuck, match="KeyError: 'juggler'"):
        Contestant("files", "juggler", tmp_path, {})
