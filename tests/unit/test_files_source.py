"""The landing folder: what is read, what is waited for and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from margin_tasks.contracts.failures import FailureReason
from margin_tasks.contracts.frames import to_arrow, to_typed
from margin_tasks.contracts.tables import FEEDS
from margin_tasks.sources import FeedDelivery, Source, SourceError, export_feeds, open_source, pull_feeds
from margin_tasks.sources.delivery import text_columns
from tests.unit.clearing_book import BUSINESS_DATE, SESSION, land, valid_book

DAY = BUSINESS_DATE.isoformat()
MEMBERS_HEADER = b"member_id,member_name,country,contact_email,issuer_group\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return land(valid_book(), tmp_path / "landing")


def _source(folder: Path) -> Source:
    return open_source(f"files:{folder}")


def _pull(folder: Path, feed: str = "members") -> FeedDelivery:
    return _source(folder).pull(feed, business_date=BUSINESS_DATE, session=SESSION)


def _refusal(folder: Path, feed: str = "members") -> SourceError:
    with pytest.raises(SourceError) as caught:
        _pull(folder, feed)
    return caught.value


def test_delivery_has_text_rows_and_provenance(folder: Path) -> None:
    delivery = _pull(folder, "positions")
    data = (folder / "positions.csv").read_bytes()
    assert delivery.sha256 == hashlib.sha256(data).hexdigest()
    assert delivery.row_count == len(delivery.frame) == 192
    assert delivery.frame["_row"].tolist()[:2] == [2, 3]
    assert delivery.location == str(folder / "positions.csv")
    assert delivery.source_spec == f"files:{folder}"
    assert all(isinstance(cell, str) for cell in delivery.frame["quantity"])


def test_provenance_and_frame_may_be_kept_apart(folder: Path) -> None:
    (folder / "members.csv").write_bytes(MEMBERS_HEADER + b"M1,too,many,cells,here,now\n")
    delivery = _pull(folder)
    kept = json.loads(json.dumps(delivery.provenance()))
    again = FeedDelivery.of_provenance(kept, delivery.frame)
    assert again.problems == delivery.problems
    assert again.provenance() == delivery.provenance()


def test_half_delivered_feeds_are_waited_for(tmp_path: Path) -> None:
    folder = land(valid_book(), tmp_path / "landing", is_complete=False)
    source = _source(folder)
    assert set(source.missing(BUSINESS_DATE, SESSION)) == set(FEEDS)
    assert _refusal(folder).reason is FailureReason.FEED_INCOMPLETE
    (folder / "trades.csv").unlink()
    (folder / "_SUCCESS").touch()
    assert list(source.missing(BUSINESS_DATE, SESSION)) == ["trades"]
    assert _refusal(folder, "trades").reason is FailureReason.FEED_MISSING
    land(valid_book(), folder)
    assert source.missing(BUSINESS_DATE, SESSION) == {}


def test_a_folder_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    assert set(_source(tmp_path / "nowhere").missing(BUSINESS_DATE, SESSION)) == set(FEEDS)


def test_a_feed_in_parts_is_one_feed_with_file_and_line(folder: Path) -> None:
    whole = _pull(folder, "positions")
    lines = (folder / "positions.csv").read_text().splitlines(keepends=True)
    (folder / "positions.csv").unlink()
    parts = folder / "positions"
    parts.mkdir()
    (parts / "part-1.csv").write_text("".join([lines[0], *lines[100:]]))
    (parts / "part-0.csv").write_text("".join(lines[:100]))
    (parts / ".part-2.csv.tmp").write_text("not read")
    delivery = _pull(folder, "positions")
    names = text_columns(whole.frame)
    pd.testing.assert_frame_equal(delivery.frame[names], whole.frame[names])
    assert delivery.frame["_file"].iloc[-1] == str(parts / "part-1.csv")
    assert delivery.frame["_row"].iloc[99] == 2
    (folder / "_SUCCESS").unlink()
    assert "positions" in _source(folder).missing(BUSINESS_DATE, SESSION)
    (parts / "_SUCCESS").touch()
    assert "positions" not in _source(folder).missing(BUSINESS_DATE, SESSION)


def test_parts_with_different_headers_are_refused(folder: Path) -> None:
    (folder / "members.csv").unlink()
    (folder / "members").mkdir()
    (folder / "members" / "a.csv").write_bytes(MEMBERS_HEADER)
    (folder / "members" / "b.csv").write_bytes(b"member_id\n")
    assert _refusal(folder).reason is FailureReason.HEADER_MISMATCH


def test_a_feed_delivered_twice_is_refused(folder: Path) -> None:
    (folder / "members.parquet").touch()
    error = _refusal(folder)
    assert error.reason is FailureReason.FILE_UNREADABLE
    assert "members.csv and members.parquet" in error.message


def test_the_folder_of_the_day_comes_first(folder: Path) -> None:
    day = land({"members": valid_book()["members"].head(1)}, folder / "2026-02-05")
    assert _pull(folder).row_count == 1
    land({"members": valid_book()["members"].head(2)}, day / "EOD")
    assert _pull(folder).row_count == 2
    other = _source(folder).pull("members", business_date=BUSINESS_DATE.replace(day=6), session=SESSION)
    assert other.row_count == 8


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", FailureReason.FILE_TRUNCATED),
        (b"\n\n", FailureReason.FILE_TRUNCATED),
        (MEMBERS_HEADER + b"M1,One,DE,a@b.ex", FailureReason.FILE_TRUNCATED),
        (MEMBERS_HEADER + b'M1,"One,DE,a@b.example\nM2,Two,DE,a@b.example\n', FailureReason.FILE_TRUNCATED),
        (MEMBERS_HEADER + b"M1,M\xfcller,DE,a@b.example\n", FailureReason.FILE_UNREADABLE),
        ("member_id\nM1\n".encode("utf-16"), FailureReason.FILE_UNREADABLE),
        (b"member_id,member_id\nM1,M1\n", FailureReason.HEADER_MISMATCH),
        (b"member_id,_row\nM1,M1\n", FailureReason.HEADER_MISMATCH),
    ],
)
def test_damaged_csv_is_refused(folder: Path, data: bytes, reason: FailureReason) -> None:
    (folder / "members.csv").write_bytes(data)
    error = _refusal(folder)
    assert error.reason is reason
    assert "members.csv" in error.message


def test_every_cut_of_a_file_inside_a_line_is_noticed(folder: Path) -> None:
    data = (folder / "members.csv").read_bytes()
    for length in range(1, len(data), 7):
        cut = data[:length]
        if not cut.endswith(b"\n"):
            (folder / "members.csv").write_bytes(cut)
            assert _refusal(folder).reason is FailureReason.FILE_TRUNCATED


def test_quotes_byte_order_mark_and_windows_lines(folder: Path) -> None:
    (folder / "members.csv").write_bytes(
        b"\xef\xbb\xbfmember_id,member_name,country,contact_email,issuer_group\r\n"
        b'M1,"Smith, ""Sons"" & Co",GB,a@b.example,\r\n'
        b"\r\n"
        b'M2,"two\r\nlines",,"",\r\n'
        b"M3,Three,DE,c@d.example,GROUP\r\n"
    )
    frame = _pull(folder).frame
    assert list(frame.columns) == ["member_id", "member_name", "country", "contact_email", "issuer_group", "_row"]
    assert frame["member_name"].tolist() == ['Smith, "Sons" & Co', "two\r\nlines", "Three"]
    assert frame.loc[1, ["country", "contact_email"]].tolist() == [None, None]
    assert frame["_row"].tolist() == [2, 4, 6]


def test_lines_of_the_wrong_shape_become_problems(folder: Path) -> None:
    (folder / "members.csv").write_bytes(
        MEMBERS_HEADER
        + b"M1,One,DE\nM2,Two,DE,b@c.example,,more\n"
        + b'M3,"Three"x,DE,c@d.example,\nM4,Four,DE,d@e.example,\n'
    )
    delivery = _pull(folder)
    assert delivery.frame["member_id"].tolist() == ["M4"]
    assert delivery.row_count == 4
    assert [(problem.row, problem.rule) for problem in delivery.problems] == [
        (2, "row_shape"),
        (3, "row_shape"),
        (4, "row_shape"),
    ]
    assert delivery.problems[0].cells == ("M1", "One", "DE")
    assert delivery.problems[2].cells == ('M3,"Three"x,DE,c@d.example,',)


def test_a_header_alone_is_an_empty_feed(folder: Path) -> None:
    (folder / "members.csv").write_bytes(MEMBERS_HEADER)
    assert _pull(folder).row_count == 0


@pytest.mark.parametrize("feed", FEEDS)
def test_typed_and_text_parquet_equal_csv(folder: Path, feed: str) -> None:
    table = FEEDS[feed]
    expected = to_typed(_pull(folder, feed).frame, table)
    text = valid_book()[feed]
    (folder / f"{feed}.csv").unlink()
    path = folder / f"{feed}.parquet"
    for arrow in (
        to_arrow(to_typed(text, table), table),
        pa.table({name: pa.array(text[name], type=pa.string()) for name in text.columns}),
    ):
        pq.write_table(arrow, path)
        delivery = _pull(folder, feed)
        pd.testing.assert_frame_equal(to_typed(delivery.frame, table), expected)
        assert delivery.frame["_row"].iloc[0] == 2


def test_parquet_of_other_types_is_read_as_the_contract_writes_it(folder: Path) -> None:
    (folder / "order_book_depth.csv").unlink()
    instant = pd.Timestamp("2026-02-05 22:29:30.123456789", tz="Europe/Berlin")
    pq.write_table(
        pa.table(
            {
                "business_date": pa.array([pd.Timestamp("2026-02-05")], type=pa.timestamp("ns")),
                "instrument_id": pa.array(["BTC-PERPETUAL"]).dictionary_encode(),
                "side": pa.array(["bid"], type=pa.large_string()),
                "level": pa.array([0.0]),
                "level_price": pa.array([63999.5], type=pa.float32()),
                "level_quantity": pa.array([5], type=pa.int8()),
                "observed_at": pa.array([instant], type=pa.timestamp("ns", tz="Europe/Berlin")),
            }
        ),
        folder / "order_book_depth.parquet",
    )
    row = _pull(folder, "order_book_depth").frame.iloc[0].to_dict()
    assert row == {
        "business_date": "2026-02-05",
        "instrument_id": "BTC-PERPETUAL",
        "side": "bid",
        "level": "0",
        "level_price": "63999.5",
        "level_quantity": "5",
        "observed_at": "2026-02-05T21:29:30.123456Z",
        "_row": 2,
    }


@pytest.mark.parametrize("keep", [0, 3, 0.5, 0.99])
def test_cut_parquet_is_refused(folder: Path, keep: float) -> None:
    export_feeds(_source(folder), folder / "typed", business_date=BUSINESS_DATE, session=SESSION, file_format="parquet")
    path = folder / "typed" / "members.parquet"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if keep < 1 else int(keep)])
    assert _refusal(folder / "typed").reason is FailureReason.FILE_TRUNCATED


def test_damaged_parquet_is_refused(folder: Path) -> None:
    (folder / "members.csv").unlink()
    (folder / "members.parquet").write_bytes(b"PAR1" + b"\x00" * 50 + b"PAR1")
    assert _refusal(folder).reason is FailureReason.FILE_UNREADABLE


def _manifest(folder: Path) -> dict[str, dict[str, object]]:
    return {
        feed: {"sha256": hashlib.sha256((folder / f"{feed}.csv").read_bytes()).hexdigest(), "rows": len(frame)}
        for feed, frame in valid_book().items()
    }


def test_manifest_is_kept(folder: Path) -> None:
    (folder / "_manifest.json").write_text(json.dumps(_manifest(folder)))
    assert not pull_feeds(_source(folder), business_date=BUSINESS_DATE, session=SESSION).failures


@pytest.mark.parametrize(
    "change",
    [{"sha256": "0" * 64}, {"rows": 7}, {"rows": "8"}],
)
def test_broken_manifest_promise_is_refused(folder: Path, change: dict[str, object]) -> None:
    manifest = _manifest(folder)
    manifest["members"] |= change
    (folder / "_manifest.json").write_text(json.dumps(manifest))
    assert _refusal(folder).reason is FailureReason.MANIFEST_MISMATCH
    assert _pull(folder, "accounts").row_count == 24


@pytest.mark.parametrize("text", ["{", "[]", '{"members": {}}', '{"accounts": {"rows": 24}}'])
def test_unusable_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / "_manifest.json").write_text(text)
    assert _refusal(folder).reason is FailureReason.MANIFEST_MISMATCH


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_export_can_be_read_back(folder: Path, tmp_path: Path, file_format: str) -> None:
    written = export_feeds(
        _source(folder),
        tmp_path / "copy",
        business_date=BUSINESS_DATE,
        session=SESSION,
        file_format="csv" if file_format == "csv" else "parquet",
    )
    assert Path(written[-1]).name == "_SUCCESS"
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == sorted(
        ["_SUCCESS", *(f"{feed}.{file_format}" for feed in FEEDS)]
    )
    for feed, table in FEEDS.items():
        pd.testing.assert_frame_equal(
            to_typed(_pull(tmp_path / "copy", feed).frame, table), to_typed(_pull(folder, feed).frame, table)
        )


def test_export_does_not_mix_formats(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    export_feeds(_source(folder), copy, business_date=BUSINESS_DATE, session=SESSION)
    with pytest.raises(SourceError) as caught:
        export_feeds(_source(folder), copy, business_date=BUSINESS_DATE, session=SESSION, file_format="parquet")
    assert caught.value.reason is FailureReason.INVALID_REQUEST


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "file:x",
        "files:",
        "files:gs://bucket",
        "files:s3://key:secret@bucket/x",
        "sql:nonsense",
        "sql:oracle://u:secret@h/d",
    ],
)
def test_unknown_sources_are_named_without_their_secrets(spec: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(spec)
    assert caught.value.reason is FailureReason.UNKNOWN_SOURCE
    assert "secret" not in str(caught.value)


def test_a_generator_is_opened_by_name(folder: Path) -> None:
    assert open_source("sample", generators={"sample": lambda: _source(folder)}).spec == f"files:{folder}"


@pytest.mark.parametrize("inner", [DAY, f"{DAY}/{SESSION}"])
def test_a_hidden_file_in_the_folder_of_the_day_hides_nothing(folder: Path, inner: str) -> None:
    (folder / inner).mkdir(parents=True)
    (folder / inner / ".DS_Store").touch()
    assert _source(folder).missing(BUSINESS_DATE, SESSION) == {}
    assert _pull(folder).location == str(folder / "members.csv")


def test_what_is_missed_says_which_folder_was_read_and_why(folder: Path) -> None:
    (folder / DAY).mkdir()
    (folder / DAY / "notes.txt").touch()
    message = _refusal(folder).message
    assert f"{folder / DAY} (the folder of the day" in message
    assert _source(folder).missing(BUSINESS_DATE, SESSION)["members"] in message
    (folder / DAY / "notes.txt").unlink()
    (folder / "members.csv").unlink()
    assert f"{folder} (there is nothing in {folder / DAY}/)" in _refusal(folder).message
