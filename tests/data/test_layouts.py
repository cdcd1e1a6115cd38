"""Published data sets, each in the layout of its own: hand-made files line by line as the sources show them."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_app.data.catalog import read_catalog
from ray_app.data.layouts import LAYOUTS, laid_out, stem
from ray_app.data.logs import LogRules
from ray_app.data.passes import Chunk, ReadPass
from ray_app.data.raw_files import find_catalog, find_sources
from ray_app.data.sources import columns_of, cut, inspect
from ray_app.data_config import DataConfig, FormatName
from ray_app.errors import DataError
from ray_app.schema import Col
from ray_app.storage import Storage

from .conftest import Prepare, histories

SECOND = 1_000_000
Rows = list[tuple[Any, ...]]


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., tuple[Rows, dict[str, dict[str, Any]], dict[str, int]]]:
    """`read(name, files, key=value)`: events (user, item, time), items by id, and refused rows by reason.

    `files` are the texts of a folder; a name that ends in .gz is packed.
    """

    def run(kind: str, files: dict[str, str | bytes], where: str = "", **settings: Any):
        folder, storage = tmp_path / "raw", Storage(path=str(tmp_path / "out"))
        folder.mkdir()
        for name, text in files.items():
            data = text if isinstance(text, bytes) else text.encode()
            (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        settings |= {"items": str(folder / settings["items"])} if "items" in settings else {}
        data = DataConfig.model_validate({"format": kind, "events": str(folder / where)} | settings)
        events = find_sources(storage, data.events, kind, "data.events")
        items = find_catalog(storage, data.items, kind, events)
        sources, catalog = inspect(storage, events, ("timestamp",)), inspect(storage, items, ("available_from",))
        assert [source.problem for source in sources + catalog] == [None] * len(sources + catalog)
        data = laid_out(data, columns_of(sources), columns_of(catalog))
        task = ReadPass(storage, str(tmp_path / "staged"), LogRules.of(data, day_first=False), num_buckets=1)
        report = task(Chunk(number=0, pieces=[piece for chunk in cut(sources, 1000) for piece in chunk]))
        table = pa.concat_tables([storage.read_table(file.uri) for file in report.staged])
        rows = list(zip(*(table[name].to_pylist() for name in (Col.USER, Col.ITEM, Col.TIME)), strict=True))
        return (
            rows,
            {row[Col.ITEM]: row for row in read_catalog(storage, catalog, data).table.to_pylist()},
            report.reasons,
        )

    return run


def test_every_layout_can_be_asked_for():
    assert set(LAYOUTS) == set(get_args(FormatName)) - {"auto", "parquet", "csv", "jsonl"}


def test_recbole_atomic_files(read):
    events, items, refused = read(
        "recbole",
        {
            "shop.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n"
            "22\tB-7\t1\t878887116\n",
            "shop.item": "item_id:token\ttitle:token_seq\tprice:float\tbrand:token\tcategories:token_seq\n"
            '242\t12" "Kolya" doll\t9.99\tACME\tToys Dolls\nB-7\tTea\t\t\t\n',
            "shop.user": "user_id:token\tage:token\n196\t49\n",
            "other.item": "item_id:token\ttitle:token_seq\n242\tof another data set\n",
        },
    )
    assert events == [("196", "242", 881_250_949 * SECOND), ("22", "B-7", 878_887_116 * SECOND)]
    assert items["242"][Col.TITLE] == '12" "Kolya" doll'
    assert (items["242"][Col.PRICE], items["242"][Col.BRAND], items["242"][Col.CATEGORY]) == (
        9.99,
        "ACME",
        "Toys Dolls",
    )
    assert (items["B-7"][Col.TITLE], items["B-7"][Col.PRICE], refused) == ("Tea", None, {})


def test_movielens_100k(read):
    flags = "0|0|0|1|1|1" + "|0" * 13
    events, items, refused = read(
        "movielens_100k",
        {
            "u.data": "196\t242\t3\t881250949\n186\t302\t2\t891717742\n22\t377\n",
            "u.item": f"242|Toy Story (1995)|01-Jan-1995||http://us.imdb.com/M/title-exact?Toy%20Story%20(1995)|{flags}\n"
            f"543|Misérables, Les (1995)|01-Jan-1995||http://us.imdb.com/M/title|{flags}\n".encode("latin-1").decode(
                "latin-1"
            )
            + "267|unknown||||1"
            + "|0" * 18
            + "\n",
            "u1.base": "1\t1\t5\t874965758\n",
            "u.user": "1|24|M|technician|85711\n",
        },
        min_rating=3,
    )
    assert events == [("196", "242", 881_250_949 * SECOND)]
    assert refused == {"low_rating": 1, "bad_line": 1}
    assert items["242"][Col.CATEGORY] == "Animation, Children's, Comedy"
    assert (items["543"][Col.TITLE], items["267"][Col.CATEGORY]) == ("Misérables, Les (1995)", "unknown")


def test_movielens_1m_in_latin_letters_and_packed(read):
    events, items, _ = read(
        "movielens_1m",
        {
            "ratings.dat.gz": "1::1193::5::978300760\n1::661::3::978302109\n",
            "movies.dat": '1193::Misérables, Les (1995)::Drama|Musical\n661::James: a "Peach"::Animation\n'.encode(
                "latin-1"
            ),
            "users.dat": "1::F::1::10::48067\n",
        },
    )
    assert events == [("1", "1193", 978_300_760 * SECOND), ("1", "661", 978_302_109 * SECOND)]
    assert items["1193"][Col.TITLE] == "Misérables, Les (1995)"
    assert items["1193"][Col.CATEGORY] == "Drama, Musical"
    assert items["661"][Col.TITLE] == 'James: a "Peach"'


def test_movielens_20m(read):
    events, items, refused = read(
        "movielens_20m",
        {
            "ratings.csv": "userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n1,29,,1112484676\n",
            "movies.csv": "movieId,title,genres\n2,Jumanji (1995),Adventure|Children|Fantasy\n"
            '29,"City of Lost Children, The (Cité des enfants perdus, La) (1995)",Adventure|Drama\n',
            "tags.csv": "userId,movieId,tag,timestamp\n18,4141,Mark Waters,1240597180\n",
        },
        min_rating=3.5,
    )
    assert events == [("1", "2", 1_112_486_027 * SECOND)]
    assert refused == {"bad_rating": 1}
    assert items["29"][Col.TITLE].startswith("City of Lost Children, The (Cité")
    assert items["2"][Col.CATEGORY] == "Adventure, Children, Fantasy"


AMAZON_REVIEW = (
    '{"reviewerID": "A2SUAM1J3GNN3B", "asin": "0000013714", "reviewerName": "J. McDonald", "helpful": [2, 3], '
    '"reviewText": "I bought this \\"for\\" my husband", "overall": 5.0, "summary": "Heavenly", '
    '"unixReviewTime": 1252800000, "reviewTime": "09 13, 2009"}\n'
)


def test_amazon_2014_with_a_catalogue_of_python_dicts(read):
    events, items, refused = read(
        "amazon_2014",
        {
            "reviews_Sports_5.json.gz": AMAZON_REVIEW + "{'asin': no review}\n",
            "meta_Sports.json.gz": "{'asin': '0000031852', 'title': \"Girls' Ballet \\d Tutu\", 'price': 3.17, "
            "'imUrl': 'http://x/51fA.jpg', 'related': {'also_bought': ['B00JHONN1S']}, 'salesRank': {'Toys': 211836}, "
            "'brand': 'Coxlures', 'categories': [['Sports & Outdoors', 'Dance'], ['Toys']]}\n"
            "{'asin': '0000013714', 'categories': [['Books']], 'description': None}\n",
            "meta_Books.json.gz": "{'asin': '1', 'title': 'of another category'}\n",
        },
    )
    assert events == [("A2SUAM1J3GNN3B", "0000013714", 1_252_800_000 * SECOND)]
    assert refused == {"bad_line": 1}
    tutu = items["0000031852"]
    assert (tutu[Col.TITLE], tutu[Col.PRICE], tutu[Col.BRAND]) == ("Girls' Ballet \\d Tutu", 3.17, "Coxlures")
    assert tutu[Col.CATEGORY] == "Sports & Outdoors, Dance, Toys"
    assert set(items) == {"0000031852", "0000013714"}


def test_amazon_2018(read):
    events, items, _ = read(
        "amazon_2018",
        {
            "Toys_5.json": '{"overall": 2.0, "verified": true, "reviewTime": "01 1, 2018", "reviewerID": "AUI6", '
            '"asin": "5120053084", "style": {"Color:": " Red"}, "unixReviewTime": 1514764800}\n'
            '{"overall": 4.0, "reviewerID": "AUI7", "asin": "5120053084", "vote": "3", "unixReviewTime": 1514851200}\n',
            "meta_Toys.json.gz": '{"category": ["Toys", "Games"], "description": ["Big", "red"], '
            '"title": "X&#39;s &amp; O", '
            '"also_buy": [], "brand": "by X", "rank": ["1", "2"], "price": "$24.95", "asin": "5120053084"}\n',
        },
        min_rating=4,
    )
    assert events == [("AUI7", "5120053084", 1_514_851_200 * SECOND)]
    ball = items["5120053084"]
    assert (ball[Col.CATEGORY], ball[Col.DESCRIPTION], ball[Col.PRICE]) == ("Toys, Games", "Big, red", 24.95)
    assert ball[Col.TITLE] == "X's & O"


def test_amazon_2023_in_milliseconds_by_parent(read):
    events, items, _ = read(
        "amazon_2023",
        {
            "All_Beauty.jsonl": '{"rating": 5.0, "title": "Such a lovely scent", "text": "nice", "images": [], '
            '"asin": "B00YQ6X8EO", "parent_asin": "B00YQ6X8E0", "user_id": "AGKH", "timestamp": 1588687728923, '
            '"helpful_vote": 0, "verified_purchase": true}\n',
            "meta_All_Beauty.jsonl.gz": '{"main_category": "All Beauty", "title": "Spray", "average_rating": 4.8, '
            '"features": [], "description": [], "price": null, "images": [], "store": "Howard", '
            '"categories": ["Hair"], "details": {"Size": "2 oz"}, "parent_asin": "B00YQ6X8E0"}\n',
        },
        where="All_Beauty.jsonl",
    )
    assert events == [("AGKH", "B00YQ6X8E0", 1_588_687_728_923_000)]
    spray = items["B00YQ6X8E0"]
    assert (spray[Col.TITLE], spray[Col.BRAND], spray[Col.CATEGORY]) == ("Spray", "Howard", "Hair")


ONLINE_RETAIL = (
    "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
    "536365,85123A,WHITE HANGING HEART T-LIGHT HOLDER,6,12/1/2010 8:26,2.55,17850,United Kingdom\n"
    '536414,22139,"RETROSPOT, £5",56,12/1/2010 11:52,0,,United Kingdom\n'
)


@pytest.mark.parametrize("second", [False, True])
def test_online_retail_and_its_second_edition(read, second: bool):
    text = ONLINE_RETAIL
    if second:
        text = text.replace("InvoiceNo", "Invoice").replace("UnitPrice", "Price").replace("CustomerID", "Customer ID")
    events, items, refused = read("online_retail", {"data.csv": text.encode("latin-1")})
    assert events == [("17850", "85123A", 1_291_191_960 * SECOND)]
    assert (items, refused) == ({}, {"missing_user": 1})


def test_what_is_set_wins_over_the_layout(read):
    """Columns, unit and catalogue of the layout are there, and others were asked for."""
    events, items, _ = read(
        "movielens_20m",
        {
            "ratings.csv": "userId,movieId,shop,rating,timestamp\nu1,2,s7,3.5,1112486027000\n",
            "movies.csv": "movieId,title,genres\n2,Jumanji (1995),Adventure\n",
            "mine.csv": "sku,title\ns7,ours\n",
        },
        columns={"item_id": "shop"},
        item_columns={"item_id": "sku"},
        timestamp_unit="ms",
        items="mine.csv",
    )
    assert events == [("u1", "s7", 1_112_486_027 * SECOND)]
    assert items["s7"][Col.TITLE] == "ours"


def test_a_folder_of_another_layout_is_refused_with_what_was_looked_for(tmp_path: Path):
    for name in ("ratings.csv", "movies.csv", "README.txt"):
        (tmp_path / name).write_text("userId,movieId,rating,timestamp\n")
    with pytest.raises(DataError) as error:
        find_sources(Storage(), (str(tmp_path),), "movielens_1m", "data.events")
    assert str(error.value) == (
        f"{tmp_path}: no file there is laid out as data.format movielens_1m has it; looked for ratings.dat (or .gz), "
        "found README.txt, movies.csv, ratings.csv; that looks like movielens_20m"
    )


@pytest.mark.parametrize("name", ["Online Retail.xlsx", "ml-20m.zip"])
def test_a_sheet_or_an_archive_is_to_be_opened_first(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(DataError, match="unpack it, or save the sheet as CSV"):
        find_sources(Storage(), (str(tmp_path / name),), "online_retail", "data.events")


def test_a_star_stands_for_the_same_in_events_and_catalogue():
    assert stem("s3://b/x/reviews_Beauty_5.json.gz", LAYOUTS["amazon_2014"].events.patterns) == "Beauty"
    assert stem("/x/reviews_Beauty.json", LAYOUTS["amazon_2014"].events.patterns) == "Beauty"
    assert stem("/x/Beauty.json", LAYOUTS["amazon_2014"].events.patterns) is None
    assert stem("/x/.inter", LAYOUTS["recbole"].events.patterns) is None


@pytest.mark.parametrize("kind", ["recbole", "movielens_100k"])
def test_movielens_whole_by_one_setting(prepared: Prepare, shared_data: Path, tmp_path: Path, kind: str):
    """The published counts, and the same histories as from the table they were written from."""
    ratings = pq.read_table(shared_data / "ml100k" / "ratings.parquet")
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" if kind == "recbole" else ""
    rows = zip(*(ratings[name].to_pylist() for name in ("user_id", "item_id", "rating", "timestamp")), strict=True)
    name = "ml-100k.inter" if kind == "recbole" else "u.data"
    (tmp_path / name).write_text(header + "".join(f"{u}\t{i}\t{r:g}\t{t:.0f}\n" for u, i, r, t in rows))
    dataset = prepared(tmp_path / name, format=kind, split={"kind": "leave_one_out"})
    counts = dataset.manifest.counts
    assert (counts.rows_in, counts.rows_kept, counts.users, counts.items) == (100_000, 100_000, 943, 1_682)
    assert dataset.manifest.data["timestamp_unit"] == ("s" if kind == "movielens_100k" else "auto")
    assert histories(dataset)[196][Col.ITEMS]
