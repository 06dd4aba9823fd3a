"""The lake: one transaction for each commit, decimals kept, one writer at a time, queries that only read."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.contracts.tables import SCHEMAS, Table
from margin_tasks.warehouse import lake as lake_module
from margin_tasks.warehouse.connection import LakeSettings
from margin_tasks.warehouse.lake import open_lake


@dataclass(frozen=True)
class Run:
    run_id: str
    business_date: date = date(2026, 2, 5)
    session: str = "EOD"


def collateral(*quantities: str) -> dict[str, pa.Table]:
    return {
        "collateral_balances": pa.table(
            {
                "business_date": pa.array([date(2026, 2, 5)] * len(quantities), pa.date32()),
                "account_id": [f"A{number}" for number in range(len(quantities))],
                "asset": ["BTC"] * len(quantities),
                "custody_location": ["VAULT"] * len(quantities),
                "quantity": pa.array([Decimal(quantity) for quantity in quantities], pa.decimal128(38, 8)),
            }
        )
    }


def stages(run: Run, *names: str) -> dict[str, pa.Table]:
    count = len(names)
    return {
        "run_stages": pa.table(
            {
                "run_id": [run.run_id] * count,
                "stage": list(names),
                "elapsed_seconds": [1.5] * count,
                "recorded_at": pa.array([datetime(2026, 2, 5, 22)] * count, pa.timestamp("us")),  # noqa: DTZ001
            }
        )
    }


QUANTITIES = "select account_id, quantity from raw.collateral_balances where run_id = ? order by account_id"


@pytest.fixture
def settings(tmp_path: Path) -> LakeSettings:
    return LakeSettings.at_home(tmp_path)


def test_a_commit_replaces_the_rows_of_its_own_run_only(settings: LakeSettings) -> None:
    with open_lake(settings, holder="test") as lake:
        lake.commit(Run("other"), schema="raw", tables=collateral("7"), message="other")
        for _ in range(2):
            lake.commit(Run("run"), schema="raw", tables=collateral("1", "2"), message="first")
        lake.commit(Run("run"), schema="raw", tables=collateral("3"), message="again")
        assert lake.query(QUANTITIES, ["run"])["quantity"].to_pylist() == [Decimal("3.00000000")]
        assert lake.query(QUANTITIES, ["other"])["quantity"].to_pylist() == [Decimal("7.00000000")]


def test_decimals_cross_the_border_to_the_last_digit(settings: LakeSettings) -> None:
    exact = "123456789012345678901234567890.12345678"
    with open_lake(settings, holder="test") as lake:
        lake.commit(Run("run"), schema="raw", tables=collateral(exact), message="exact")
        answer = lake.query(QUANTITIES, ["run"])
    assert answer.schema.field("quantity").type == pa.decimal128(38, 8)
    assert answer["quantity"].to_pylist() == [Decimal(exact)]


def test_a_commit_that_fails_leaves_the_lake_as_it_was(settings: LakeSettings) -> None:
    with open_lake(settings, holder="test") as lake:
        before = lake.commit(Run("run"), schema="raw", tables=collateral("1"), message="first")
        broken = collateral("2")["collateral_balances"].drop_columns(["asset"])
        with pytest.raises(MarginError, match="'asset'") as caught:
            lake.commit(Run("run"), schema="raw", tables={"collateral_balances": broken}, message="broken")
        assert caught.value.reason is FailureReason.CONTRACT_BROKEN
        assert lake.snapshot_id() == before
        assert lake.query(QUANTITIES, ["run"])["quantity"].to_pylist() == [Decimal(1)]


def older_registry() -> dict[str, dict[str, Table]]:
    """The registry before it had ``risk.requirement_shares`` and the asset of collateral balances."""
    balances = SCHEMAS["raw"]["collateral_balances"]
    fewer = tuple(column for column in balances.columns if column.name != "asset")
    return {
        **SCHEMAS,
        "raw": {**SCHEMAS["raw"], "collateral_balances": Table(balances.name, "older", fewer, ("account_id",))},
        "risk": {name: table for name, table in SCHEMAS["risk"].items() if name != "requirement_shares"},
    }


def test_an_older_lake_gains_the_tables_and_columns_of_the_registry(
    settings: LakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(lake_module, "SCHEMAS", older_registry())
        with open_lake(settings, holder="older") as lake:
            older = {"collateral_balances": collateral("1")["collateral_balances"].drop_columns(["asset"])}
            lake.commit(Run("older"), schema="raw", tables=older, message="older")
            assert "requirement_shares" not in lake.table_names("risk")
    with open_lake(settings, holder="newer") as lake:
        lake.commit(Run("newer"), schema="raw", tables=collateral("2"), message="newer")
        rows = lake.query("select run_id, quantity, asset from raw.collateral_balances order by run_id").to_pylist()
        assert lake.query("select * from risk.requirement_shares").num_rows == 0
        migrated = lake.snapshot_id()
    assert rows == [
        {"run_id": "newer", "quantity": Decimal(2), "asset": "BTC"},
        {"run_id": "older", "quantity": Decimal(1), "asset": None},
    ]
    with open_lake(settings, holder="again") as lake:
        assert lake.snapshot_id() == migrated


def test_a_run_reads_the_same_whatever_the_order_of_the_columns(
    settings: LakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(lake_module, "SCHEMAS", older_registry())
        with open_lake(settings, holder="older"):
            pass
    found = []
    for place in (settings, LakeSettings.at_home(tmp_path / "fresh")):
        with open_lake(place, holder="test") as lake:
            lake.commit(Run("run"), schema="raw", tables=collateral("2", "1"), message="load")
            found.append(lake.run_rows("run", schema="raw", table="collateral_balances"))
    assert found[0].column_names == sorted(found[0].column_names)
    assert "run_id" not in found[0].column_names
    assert found[0].equals(found[1])


def test_a_table_outside_the_registry_is_refused(settings: LakeSettings) -> None:
    with open_lake(settings, holder="test") as lake, pytest.raises(MarginError, match=r"raw\.secrets"):
        lake.commit(Run("run"), schema="raw", tables={"secrets": pa.table({"a": [1]})}, message="no")


def test_a_number_that_is_not_finite_is_refused(settings: LakeSettings) -> None:
    run = Run("run")
    broken = stages(run, "pull")["run_stages"].set_column(2, "elapsed_seconds", pa.array([float("nan")]))
    with open_lake(settings, holder="test") as lake, pytest.raises(MarginError) as caught:
        lake.append(run, schema="audit", tables={"run_stages": broken}, message="no")
    assert caught.value.reason is FailureReason.FIGURE_NOT_FINITE


def test_audit_rows_are_added_once_and_survive_a_discard(settings: LakeSettings) -> None:
    run = Run("run")
    with open_lake(settings, holder="test") as lake:
        lake.append(run, schema="audit", tables=stages(run, "pull"), message="pull")
        lake.append(run, schema="audit", tables=stages(run, "pull", "gate"), message="gate")
        lake.commit(run, schema="raw", tables=collateral("1"), message="load")
        lake.discard(run)
        assert lake.query("select stage from audit.run_stages order by stage")["stage"].to_pylist() == ["gate", "pull"]
        assert lake.query(QUANTITIES, ["run"]).num_rows == 0


def test_the_past_can_be_read_again(settings: LakeSettings) -> None:
    with open_lake(settings, holder="test") as lake:
        then = lake.commit(Run("run"), schema="raw", tables=collateral("1"), message="load raw")
        lake.commit(Run("run"), schema="raw", tables=collateral("2"), message="again")
        past = lake.query(f"select quantity from raw.collateral_balances at (version => {then})")
        [snapshot] = lake.query(
            "select author, commit_message from ducklake_snapshots('lake') where snapshot_id = ?", [then]
        ).to_pylist()
    assert past["quantity"].to_pylist() == [Decimal(1)]
    assert snapshot == {"author": "run", "commit_message": "load raw"}


def test_a_home_may_move(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    with open_lake(LakeSettings.at_home(before), holder="test") as lake:
        lake.commit(Run("run"), schema="raw", tables=collateral("1"), message="load")
    before.rename(after)
    with open_lake(LakeSettings.at_home(after), holder="test", is_read_only=True) as lake:
        assert lake.query(QUANTITIES, ["run"]).num_rows == 1


@pytest.mark.parametrize(
    "sql",
    [
        "delete from raw.collateral_balances",
        "drop table raw.collateral_balances",
        "create table memory.main.copy as select 1",
        "select 1; select 2",
        "select * from ducklake_cleanup_old_files('lake', cleanup_all => true)",
        "copy (select 1) to 'out.csv'",
        "attach 'other.db'",
        "set threads = 1",
        "call lake.set_option('parquet_version', '2')",
        "",
        "selec 1",
    ],
)
def test_a_query_only_reads(settings: LakeSettings, sql: str) -> None:
    with open_lake(settings, holder="test") as lake:
        before = lake.commit(Run("run"), schema="raw", tables=collateral("1"), message="load")
    with open_lake(settings, holder="test", is_read_only=True) as lake:
        with pytest.raises(MarginError) as caught:
            lake.query(sql)
        assert caught.value.reason is FailureReason.INVALID_REQUEST
        assert lake.snapshot_id() == before


def test_a_query_reads_no_other_file(settings: LakeSettings, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("a\n1\n", encoding="utf-8")
    with open_lake(settings, holder="test"):
        pass
    with (
        open_lake(settings, holder="test", is_read_only=True) as lake,
        pytest.raises(MarginError, match="disabled by configuration"),
    ):
        lake.query(f"select * from read_csv('{other}')")


def test_there_is_nothing_to_read_before_the_first_run(settings: LakeSettings) -> None:
    with (
        pytest.raises(MarginError) as caught,
        open_lake(settings, holder="test", is_read_only=True),
    ):
        pass
    assert caught.value.reason is FailureReason.NOT_FOUND


def test_readers_share_the_lake(settings: LakeSettings) -> None:
    with open_lake(settings, holder="test"):
        pass
    with (
        open_lake(settings, holder="one", is_read_only=True) as one,
        open_lake(settings, holder="two", is_read_only=True, wait_seconds=0) as two,
    ):
        assert one.snapshot_id() == two.snapshot_id()


def test_a_second_writer_waits_and_says_for_whom(settings: LakeSettings) -> None:
    lines: list[str] = []
    entered, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with open_lake(settings, holder="run 0199: load inputs"):
            entered.set()
            let_go.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert entered.wait(10)
        with pytest.raises(MarginError) as caught, open_lake(settings, holder="test", wait_seconds=0.2):
            pass
        assert caught.value.reason is FailureReason.LAKE_BUSY
        assert "run 0199: load inputs" in caught.value.message
        threading.Timer(0.3, let_go.set).start()
        with open_lake(settings, holder="test", on_wait=lines.append) as lake:
            assert lake.snapshot_id() >= 0
    finally:
        let_go.set()
        holder.join()
    assert len(lines) == 1
    assert "run 0199: load inputs" in lines[0]


def test_a_killed_writer_lets_go_and_leaves_its_last_commit(settings: LakeSettings, tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import sys, time
        from pathlib import Path
        from margin_tasks.warehouse.connection import LakeSettings
        from margin_tasks.warehouse.lake import open_lake
        from tests.unit.test_lake import Run, collateral
        with open_lake(LakeSettings.at_home(Path({str(tmp_path)!r})), holder="doomed") as lake:
            lake.commit(Run("run"), schema="raw", tables=collateral("1"), message="load")
            lake._connection.execute("begin")
            lake._connection.execute("delete from lake.raw.collateral_balances")
            print("ready", flush=True)
            time.sleep(60)
        """
    )
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
    with open_lake(settings, holder="reader", is_read_only=True, wait_seconds=5) as lake:
        assert lake.query(QUANTITIES, ["run"]).num_rows == 1
    with open_lake(settings, holder="writer", wait_seconds=5) as lake:
        lake.commit(Run("run"), schema="raw", tables=collateral("2"), message="after")
        assert lake.query(QUANTITIES, ["run"])["quantity"].to_pylist() == [Decimal(2)]
