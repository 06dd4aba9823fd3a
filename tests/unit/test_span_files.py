"""SPAN risk parameter files: what is read from small ones, and how broken ones are refused."""

from __future__ import annotations

import io

import numpy as np
import pytest

from margin_tasks.contracts.failures import FailureReason, MarginError
from margin_tasks.rulebooks.span.spn_parameters import parameters_from_spn
from margin_tasks.sources.span.pa2 import parse_line, read_pa2
from margin_tasks.sources.span.spn import SpnFile, read_spn
from tests.span_book import PLAIN, commodity_row, margin

POINTS = 16


def array(values, delta: float = 1.0) -> str:
    return f"<ra><r>1</r>{''.join(f'<a>{value}</a>' for value in values)}<d>{delta}</d></ra>"


def future(number: int, period: str, scan: float) -> str:
    values = [0, 0, *(-scan * move for move in (1, 1, -1, -1, 2, 2, -2, -2, 3, 3, -3, -3, 3, -3))]
    return (
        f"<fut><cId>{number}</cId><pe>{period}</pe><p>100.0</p><cvf>10</cvf><sc>1</sc>"
        f"<scanRate><r>1</r><priceScan>{3 * scan}</priceScan><volScan>0</volScan></scanRate>{array(values)}</fut>"
    )


def family(tag: str, number: int, code: str, body: str, **fields: str) -> str:
    extra = "".join(f"<{name}>{text}</{name}>" for name, text in fields.items())
    return f"<{tag}><pfId>{number}</pfId><pfCode>{code}</pfCode><currency>USD</currency>{extra}{body}</{tag}>"


OPTIONS = (
    "<series><pe>202603</pe><t>0.25</t><cvf>10</cvf><sc>1</sc>"
    "<scanRate><r>1</r><priceScan>30</priceScan><volScanPct>0.2</volScanPct></scanRate>"
    f"<opt><cId>9</cId><o>C</o><k>100.5</k><p>2.5</p><d>0</d><v>0.3</v>{array([1.0] * POINTS, 0.25)}</opt></series>"
)


def point(number: int, price: int, volatility: int, paired: int, weight: float = 1.0) -> str:
    moves = "".join(
        f"<{tag}><mult>{move / scale}</mult><numerator>{move}</numerator><denominator>{scale}</denominator></{tag}>"
        for tag, move, scale in (("priceScanDef", price, 3), ("volScanDef", volatility, 1))
    )
    return (
        f"<scanPointDef><point>{number}</point>{moves}<weight>{weight}</weight>"
        f"<pairedPoint>{paired}</pairedPoint></scanPointDef>"
    )


def spread(kind: str, number: int, legs: str, body: str = "") -> str:
    return f"<{kind}><spread>{number}</spread>{body}{legs}</{kind}>"


def leg(tag: str, commodity: str, side: str, where: str = "", ratio: float = 1.0) -> str:
    return f"<{tag}><cc>{commodity}</cc>{where}<rs>{side}</rs><i>{ratio}</i></{tag}>"


def rate(value: float) -> str:
    return f"<rate><r>1</r><val>{value}</val></rate>"


def commodity(code: str, families: list[int], body: str = "", method: str = "NORMAL") -> str:
    links = "".join(f"<pfLink><exch>X</exch><pfId>{number}</pfId><sc>1</sc></pfLink>" for number in families)
    return (
        f"<ccDef><cc>{code}</cc><currency>USD</currency><riskExponent>0</riskExponent><capAnov>1</capAnov>"
        f"<wfprMeth>{method}</wfprMeth><somMeth>MAX</somMeth>{links}{body}</ccDef>"
    )


def document(exchange: str = "", commodities: str = "", spreads: str = "", conversions: str = "") -> bytes:
    moves = (0, 0, 1, 1, -1, -1, 2, 2, -2, -2, 3, 3, -3, -3, 9, -9)
    points = "".join(
        point(number, move, 0 if abs(move) == 9 else 1 - 2 * ((number - 1) % 2), number if abs(move) == 9 else pair)
        for number, (move, pair) in enumerate(
            zip(moves, (2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 15, 16), strict=True), start=1
        )
    )
    return (
        "<spanFile><fileFormat>4.00</fileFormat><created>202601021200</created><pointInTime><date>20260102</date>"
        f"<isSetl>0</isSetl><clearingOrg><ec>H</ec>{conversions}<pointDef><r>1</r>{points}</pointDef>"
        f"<exchange><exch>X</exch>{exchange}</exchange>{commodities}{spreads}</clearingOrg></pointInTime></spanFile>"
    ).encode()


EXCHANGE = (
    family("futPf", 1, "CORN", future(1, "202603", 10.0) + future(2, "202606", 8.0), valueMeth="FUT")
    + family("oofPf", 2, "CORN OPTIONS", OPTIONS, valueMeth="EQTY")
    + family("futPf", 3, "SOY", future(1, "202603", 20.0), valueMeth="FUT")
)


def read(data: bytes, **wanted) -> SpnFile:
    return read_spn(io.BytesIO(data), **wanted)


def refused(reason: FailureReason, *words: str):
    return pytest.raises(MarginError, match=f"(?s){reason}.*{'.*'.join(words)}")


def test_contracts_take_what_their_series_and_family_state():
    file = read(document(EXCHANGE))
    option = file.contracts.set_index("contract_id").loc["9"]
    assert (option["exchange"], option["family"], option["family_type"]) == ("X", "CORN OPTIONS", "OOF")
    assert (option["period"], option["right"], option["strike"]) == ("202603", "C", 100.5)
    assert (option["value_factor"], option["value"], option["year_fraction"]) == (10.0, 25.0, 0.25)
    risk = file.risk_arrays[file.risk_arrays["contract"] == file.contracts.index[file.contracts["right"] == "C"][0]]
    assert risk["composite_delta"].tolist() == [0.25]
    assert risk["volatility_scan_range"].tolist() == [0.2]
    assert risk["is_volatility_range_relative"].tolist() == [True]
    assert file.arrays.shape == (4, POINTS)
    assert not file.header.is_settlement


def test_families_that_are_not_wanted_are_passed_over_but_counted():
    file = read(document(EXCHANGE), families={"SOY"})
    assert file.contracts["family"].tolist() == ["SOY"]
    assert file.arrays.shape == (1, POINTS)
    assert file.element_counts["fut"] == 3
    with refused(FailureReason.NOT_FOUND, "WHEAT", "CORN"):
        read(document(EXCHANGE), families={"WHEAT"})


def test_chunks_of_any_size_read_the_same():
    data = document(EXCHANGE)
    chunks = [data[start : start + 7] for start in range(0, len(data), 7)]
    assert np.array_equal(read_spn(chunks).arrays, read(data).arrays)
    assert read_spn(chunks).contracts.equals(read(data).contracts)


def test_broken_files_are_refused_with_line_and_element():
    whole = document(EXCHANGE)
    with refused(FailureReason.FILE_TRUNCATED, "line 1", "inside"):
        read(whole[: len(whole) // 2])
    with refused(FailureReason.FILE_UNREADABLE, "line 1", "mismatched"):
        read(whole.replace(b"</futPf>", b"</oopPf>", 1))
    with refused(FailureReason.FILE_UNREADABLE, "line 3, element p: 'abc' is no number"):
        read(whole.replace(b"<p>100.0</p>", b"\n\n<p>abc</p>", 1))
    with refused(FailureReason.FILE_UNREADABLE, "element a: 'nan' is no finite number"):
        read(whole.replace(b"<a>1.0</a>", b"<a>nan</a>", 1))
    with refused(FailureReason.FILE_UNREADABLE, "element ra: 15 values where the others have 16"):
        read(whole.replace(b"<a>1.0</a>", b"", 1))
    with refused(FailureReason.FILE_UNREADABLE, "element fut: cId is missing"):
        read(whole.replace(b"<cId>1</cId>", b"", 1))
    with refused(FailureReason.FILE_UNREADABLE, "pointInTime is missing"):
        read(b"<spanFile></spanFile>")
    with refused(FailureReason.FILE_TRUNCATED):
        read(b"")


def test_file_that_declares_entities_is_refused():
    bomb = b'<!DOCTYPE spanFile [<!ENTITY a "aaaaaaaaaa">]>' + document()
    with refused(FailureReason.FILE_UNREADABLE, "DOCTYPE"):
        read(bomb)


def test_second_point_in_time_is_refused():
    data = document().replace(b"</spanFile>", b"<pointInTime><date>20260103</date></pointInTime></spanFile>")
    with refused(FailureReason.FILE_UNREADABLE, "second point in time"):
        read(data)


def full_document() -> bytes:
    corn = (
        "<adjRate><r>1</r><baseR>1</baseR><val>1.5</val></adjRate>"
        "<intraTiers><tier><tn>1</tn><sPe>202603</sPe><ePe>202603</ePe></tier>"
        "<tier><tn>2</tn><sPe>202604</sPe><ePe>202612</ePe></tier></intraTiers>"
        f"<somTiers><tier><tn>0</tn>{rate(7.0)}</tier></somTiers>"
        + spread(
            "dSpread",
            2,
            leg("tLeg", "CORN", "A", "<tn>1</tn>") + leg("tLeg", "CORN", "B", "<tn>2</tn>"),
            f"<chargeMeth>F</chargeMeth>{rate(4.0)}",
        )
        + spread(
            "dSpread",
            1,
            leg("pLeg", "CORN", "A", "<pe>202603</pe>") + leg("pLeg", "CORN", "B", "<pe>202606</pe>", 2.0),
            "<chargeMeth>P</chargeMeth><pmpsRate><r>1</r><val>0</val><pmRate>0.5</pmRate><psRate>3</psRate></pmpsRate>",
        )
        + "<spotRate><r>1</r><pe>202603</pe><sprd>1.0</sprd><outr>2.0</outr></spotRate>"
    )
    inter = spread(
        "dSpread",
        1,
        leg("tLeg", "CORN", "A", "<tn>0</tn>", 2.0) + leg("tLeg", "SOY", "B", "<tn>0</tn>"),
        f"<chargeMeth>W</chargeMeth>{rate(0.5)}",
    )
    return document(
        EXCHANGE,
        commodity("CORN", [1, 2], corn, method="SCANRANGE_CAP") + commodity("SOY", [3]),
        f"<interSpreads>{inter}</interSpreads>",
        "<curConv><fromCur>EUR</fromCur><toCur>USD</toCur><factor>1.1</factor></curConv>",
    )


def test_parameters_of_a_day_come_from_the_file():
    day = parameters_from_spn(read(full_document()), currency="USD")
    # Two near against four far: one series spread (1:2, three months apart) takes 1 and 2, one tier spread the rest.
    held = {"a": {"CORN|FUT|202603": 2, "CORN|FUT|202606": -3, "CORN OPTIONS|OOF|202603|C|100.5": -2}}
    row = commodity_row(margin(held, day), day, "CORN")
    assert row["intra_spreads"] == pytest.approx(1.5)
    assert row["intra"] == pytest.approx(1.5 * (3.0 + 3 * 0.5))
    assert row["delivery"] == pytest.approx(1.5 * 1.0)
    assert row["short_option_minimum"] == 14.0
    assert row["option_value"] == -50.0
    assert row["maintenance"] == pytest.approx(1.5 * row["requirement"])
    credited = margin({"a": {"CORN|FUT|202606": 3, "SOY|FUT|202603": -1}}, day)
    assert credited.spreads.number.tolist() == [1.0]
    assert commodity_row(credited, day, "CORN")["inter"] == pytest.approx(2 * 24.0 * 0.5)
    assert day.conversion == {"EUR": 1.1}
    assert day.by_code["CORN"].is_option_value_capped


def test_scanning_based_spreads_come_from_the_file():
    legs = (
        "<sLeg><cc>CORN</cc><isTarget>1</isTarget><i>1</i></sLeg>"
        "<sLeg><cc>SOY</cc><isTarget>0</isTarget><isRequired>1</isRequired><i>2</i></sLeg>"
    )
    super_spread = spread("sSpread", 1, legs, f"<isTargetReq>1</isTargetReq><numLegsReq>2</numLegsReq>{rate(0.75)}")
    data = document(
        EXCHANGE,
        commodity("CORN", [1, 2]) + commodity("SOY", [3]),
        f"<superSpreads>{super_spread}</superSpreads>",
    )
    day = parameters_from_spn(read(data), currency="USD")
    row = commodity_row(margin({"a": {"CORN|FUT|202603": 4, "SOY|FUT|202603": -2}}, day), day, "CORN")
    assert row["scan"] == pytest.approx(4 * 30.0 - 0.75 * 2 * 60.0)
    assert row["net_delta"] == 0.0


def test_methods_and_classes_that_are_not_supported_are_refused():
    with refused(FailureReason.INVALID_REQUEST, "wfprMeth", "ODD"):
        parameters_from_spn(read(document(EXCHANGE, commodity("CORN", [1], method="ODD"))), currency="USD")
    with refused(FailureReason.INVALID_REQUEST, "pointDef", "class 5"):
        parameters_from_spn(read(full_document()), currency="USD", requirement_class=5)


def test_plain_conventions_do_not_round():
    day = parameters_from_spn(read(full_document()), currency="USD")
    result = margin({"a": {"SOY|FUT|202603": 0.123}}, day, PLAIN)
    assert result.portfolios.maintenance.tolist() == pytest.approx([0.123 * 60.0])


HEADER = b"0 CME   20250620SE     202506201407U2YNCLR        C CUST  H HEDGE 1 CORE  M MAINT \r\n"
KEY = b"CBT06        06        FUT 202507            0000000"
FIRST = b"81" + KEY + b"00000+00000+00567-00567-00567+00567+01133-01133-01133+00000000284100N\r\n"
SECOND = b"82" + KEY + b"01133+01700-01700-01700+01700+01683-01683+10000+000000000284100+ 10000+\r\n"


def test_pa2_file_becomes_tables_and_whole_arrays():
    file = read_pa2(io.BytesIO(HEADER + b"T CLPCUSD$0000001063\r\n" + FIRST + SECOND + b"\x1a"))
    assert file.header["business_date"] == "20250620"
    assert file.tables["T"]["rate"].tolist() == [0.001063]
    assert file.contracts["commodity"].tolist() == ["06"]
    assert file.contracts["composite_delta"].tolist() == [1.0]
    assert file.arrays.tolist() == [
        [0, 0, -567, -567, 567, 567, -1133, -1133, 1133, 1133, -1700, -1700, 1700, 1700, -1683, 1683]
    ]


def test_pa2_blank_tail_is_empty_text_and_zero():
    fields = parse_line("4 YM    100").fields
    assert (fields["code"], fields["som_rate"], fields["spot"]) == ("YM", 0, ())


def test_pa2_columns_that_mean_tables_only_under_one_method_are_left_alone_under_others():
    basis_risk = parse_line("4 YM    11SPOT      0000250" + " " * 35 + "0000170100100100")
    assert basis_risk.fields["spot"] == ()
    assert basis_risk.fields["som_rate"] == 170
    assert parse_line("3 YM    012507000010000002000000300").fields["tiers"] == ()


def test_pa2_records_that_are_not_read_are_counted():
    file = read_pa2(io.BytesIO(HEADER + b"V CME  whatever\r\nV CME  whatever\r\nY CME\r\n"))
    assert file.not_read == {"V": 2, "Y": 1}


def test_broken_pa2_files_are_refused_with_their_line():
    def refuses(reason: FailureReason, data: bytes, *words: str) -> None:
        with refused(reason, *words):
            read_pa2(io.BytesIO(data))

    refuses(FailureReason.FILE_TRUNCATED, b"", "no header")
    refuses(FailureReason.FILE_UNREADABLE, FIRST, "line 1", "before the header")
    refuses(FailureReason.FILE_UNREADABLE, HEADER.replace(b"U2", b"UP"), "line 1", "'UP'")
    refuses(FailureReason.FILE_UNREADABLE, HEADER + b"K what\n", "line 2", "'K'")
    refuses(FailureReason.FILE_UNREADABLE, HEADER + b"T CLPCUSD$00000x1063\n", "line 2", "columns 11-20", "x")
    refuses(FailureReason.FILE_UNREADABLE, HEADER + b"T CLP\xffUSD$0000001063\n", "line 2", "0xff")
    refuses(FailureReason.FILE_UNREADABLE, HEADER + FIRST.replace(b"00567-", b"00567*", 1), "line 2", "no sign")
    refuses(FailureReason.FILE_TRUNCATED, HEADER + FIRST, "line 2", "only one")
    refuses(FailureReason.DUPLICATE_KEY, HEADER + FIRST + FIRST, "line 3", "line 2")
    refuses(FailureReason.FILE_UNREADABLE, HEADER + b"C 06    100199\n", "line 2", "99 legs")


def test_requirement_class_refers_to_the_arrays_of_its_base_class():
    second = b"</adjRate><adjRate><r>2</r><baseR>1</baseR><val>2.5</val></adjRate>"
    data = full_document().replace(b"</adjRate>", second, 1)
    held = {"a": {"CORN|FUT|202606": 1}}
    owed = [
        margin(held, parameters_from_spn(read(data), currency="USD", requirement_class=number)).portfolios.maintenance[
            0
        ]
        for number in (1, 2)
    ]
    assert owed == pytest.approx([1.5 * 24.0, 2.5 * 24.0])
