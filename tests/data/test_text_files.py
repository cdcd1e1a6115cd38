import gzip
import io
import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_app.data.dialect import Dialect, Header
from ray_app.data.json_lines import parse_json
from ray_app.data.text_files import parse_csv, text_blocks

UIT = Header(("u", "i", "t"), ",")


def csv_rows(block: str | bytes, header: Header = UIT, columns: tuple[str, ...] = ("u", "t")):
    data = block.encode() if isinstance(block, str) else block
    rows = parse_csv(data, header, columns)
    values = list(zip(*(rows.table[name].to_pylist() for name in rows.table.column_names), strict=True))
    return dict(zip(rows.numbers.tolist(), values, strict=True)), rows.bad


def json_rows(block: str | bytes, columns: tuple[str, ...] = ("u", "t"), ids: tuple[str, ...] = ("u",)):
    rows = parse_json(block.encode() if isinstance(block, str) else block, columns, ids)
    return rows.table.to_pydict(), rows.numbers.tolist(), rows.bad


def test_header_tells_names_and_delimiter():
    header, rest = Dialect().split_header(b'\xef\xbb\xbf"user;id";item;t\r\n1;2;3\n')
    assert header == Header(("user;id", "item", "t"), ";")
    assert rest == b"1;2;3\n"
    assert Dialect().split_header(b"u\ti\tt")[0] == Header(("u", "i", "t"), "\t")
    assert Dialect().split_header(b"u,i,u\n")[0].names == ("u", "i", "u (3)")
    assert Dialect().split_header(b"\xef\xbb\xbf\r\n\nu,i\n1,2\n") == (Header(("u", "i"), ","), b"1,2\n")


def test_csv_columns_by_name_with_the_usual_words_for_nothing():
    good, bad = csv_rows('1,a,2\r\n"x, y",b,NULL\n,c,"say ""hi"""\n')
    assert good == {0: ("1", "2"), 1: ("x, y", None), 2: (None, 'say "hi"')}
    assert not bad


def test_a_csv_line_with_too_few_or_too_many_fields_costs_one_line():
    good, bad = csv_rows("1,a,2\n1,a\n\n2,a,3,4\n3,c,4\n")
    assert good == {0: ("1", "2"), 3: ("3", "4")}
    assert bad == {1: "1,a", 2: "2,a,3,4"}


def test_a_quote_that_is_never_closed_costs_one_line():
    good, bad = csv_rows('1,a,2\n2,"a,3\n3,b,3\n4,d,5\n')
    assert good == {0: ("1", "2"), 2: ("3", "3"), 3: ("4", "5")}
    assert bad == {1: '2,"a,3'}


def test_two_stray_quotes_do_not_swallow_the_lines_between():
    good, bad = csv_rows('1,a,2\n2,"a,3\n3,b,3\n4,d,5\n6,"x,1\n7,y,2\n')
    assert good == {0: ("1", "2"), 2: ("3", "3"), 3: ("4", "5"), 5: ("7", "2")}
    assert bad == {1: '2,"a,3', 4: '6,"x,1'}


@pytest.mark.parametrize("line", ['1,5" nail,"2', '1,"a","2', '1,5","2', '1,a,"2', '1,"a""b,2'])
@pytest.mark.parametrize("others", [3, 1000])
@pytest.mark.parametrize("last", [False, True])
def test_a_quote_that_opens_a_field_costs_one_line_however_many_stand_in_it(line: str, others: int, last: bool):
    """Lines with an even number of quotes were trusted, and all that followed was swallowed without a trace."""
    good = [f"{k},x,{k}" for k in range(others)]
    good_rows, bad = csv_rows("\n".join([*good, line] if last else [line, *good]) + "\n")
    assert list(good_rows.values()) == [(str(k), str(k)) for k in range(others)]
    assert bad == {others if last else 0: line}


def test_carriage_returns_end_lines_too():
    good, bad = csv_rows('1,a,2\r3,b,4\r\n5,"x,6\n7,"y\r\n\r\nz",8\r', columns=("u", "i", "t"))
    assert good == {0: ("1", "a", "2"), 1: ("3", "b", "4"), 3: ("7", "y\r\n\r\nz", "8")}
    assert bad == {2: '5,"x,6'}


def test_line_ends_inside_quotes_belong_to_the_field():
    good, bad = csv_rows('1,"a\nb, c",2\n2,x\n3,d,4\n')
    assert good == {0: ("1", "2"), 2: ("3", "4")}
    assert bad == {1: "2,x"}


def test_bytes_that_are_not_utf8_cost_one_line_only_in_columns_that_are_read():
    good, bad = csv_rows(b"1,\xff,2\n\xff,a,3\n4,b,5\n")
    assert good == {0: ("1", "2"), 2: ("4", "5")}
    assert bad == {1: "not UTF-8"}


def test_a_csv_line_that_is_not_utf8_nor_of_the_right_length_costs_one_line():
    """pyarrow could not hand it over, and the rest of the file was given up."""
    good, bad = csv_rows(b"1,a,2\n\xc1,b\n3,\xe9,4\n5,c,6\n")
    assert good == {0: ("1", "2"), 2: ("3", "4"), 3: ("5", "6")}
    assert bad == {1: "\ufffd,b"}


def test_json_lines_keep_their_types():
    table, numbers, bad = json_rows('{"u": 1, "t": "2010-12-01"}\n{"t": null, "u": 2, "other": [1]}\n')
    assert table["u"] == [1, 2]
    assert numbers == [0, 1]
    assert not bad


def test_a_bad_json_line_costs_one_line():
    block = b'{"u": 1, "t": 2}\n{"u": 1\n\n[1, 2]\n{"u": "\xff"}\n"x"\n{"u": 3, "t": 4.5}\n'
    table, numbers, bad = json_rows(block)
    assert (table, numbers) == ({"u": [1, 3], "t": [2.0, 4.5]}, [0, 5])
    assert sorted(bad) == [1, 2, 3, 4]


def test_ids_in_json_are_not_dates_and_keep_all_digits():
    assert json_rows('{"u": "2010-12-01"}\n')[0]["u"] == ["2010-12-01"]
    assert json_rows('{"u": 12345678901234567890123}\n{"u": 1}\n')[0]["u"] == ["12345678901234567890123", "1"]


def test_a_json_column_of_mixed_types_becomes_text():
    table, _, bad = json_rows('{"u": 1, "t": 5}\n{"u": "x", "t": true}\n{"u": null, "t": "y"}\n')
    assert table == {"u": ["1", "x", None], "t": ["5", "true", "y"]}
    assert not bad


def test_lone_surrogates_do_no_harm():
    assert json_rows('{"u": "\\ud800"}\n{"u": 3}\n')[0]["u"] == ["?", "3"]
    assert parse_json(b'{"\\ud800": 1}\n', None, ()).table.column_names == ["?"]


def stream(data: bytes, packed: bool = False) -> pa.NativeFile:
    return pa.CompressedInputStream(pa.BufferReader(data), "gzip") if packed else pa.BufferReader(data)


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from([b"a,b\n", b"\n", b'"x\ny",1\n', b"\r\n", b'st"ray\n', b"long" * 9 + b"\n"])),
    st.integers(1, 40),
)
def test_blocks_lose_nothing_and_end_at_line_ends(lines: list[bytes], size: int):
    data = b"".join(lines) + b"last"
    for quotes in (True, False):
        blocks = list(text_blocks(stream(data), quotes, size))
        assert b"".join(blocks) == data
        assert all(block.endswith(b"\n") for block in blocks[:-1])


def test_blocks_are_not_cut_inside_quotes():
    data = b"".join(b'%d,"two\nlines"\n' % k for k in range(1000))
    blocks = list(text_blocks(stream(data), quotes=True, size=100))
    assert len(blocks) > 50
    assert all(block.count(b'"') % 2 == 0 for block in blocks)


def test_a_truncated_gzip_file_gives_what_it_has_and_then_fails():
    text = b"".join(b"line %d\n" % k for k in range(200_000))
    packed = gzip.compress(text)
    found = []
    with pytest.raises(OSError, match=r"[Tt]runcated"):
        found.extend(text_blocks(stream(packed[:-5000], packed=True), quotes=False, size=1 << 16))
    assert text.startswith(b"".join(found))
    assert len(found) > 1


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), st.integers())
    )
)
def test_csv_and_json_agree_with_the_standard_library(rows: list[tuple[str, int]]):
    import csv

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows((name, "x", number) for name, number in rows)
    nothing = {"NULL", "null", "NaN", "nan", "None", "N/A", "\\N"}
    good, bad = csv_rows(text.getvalue())
    assert [value for _, value in sorted(good.items())] == [(None if n in nothing else n, str(k)) for n, k in rows]
    assert not bad
    table, _, bad = json_rows("".join(json.dumps({"u": name, "t": 1}) + "\n" for name, _ in rows))
    assert table.get("u", []) == [name for name, _ in rows]
    assert not bad
