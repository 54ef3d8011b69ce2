"""The scores table: what is written is read again, in every format, and nothing half-written stays."""

from pathlib import Path

import pytest

from service.api.score_records import COLUMNS, GroupSummary, ScoreRow, TableInfo
from service.errors import InvalidInput
from service.offline.scores_table import ScoresWriter, read_scores, write_scores

ROWS = [
    ScoreRow("a", "1.png", "/x/1.png", 1, 3.25, 0.1 + 0.2, True, False, 12.5, 'too "red", ünlike', "", '[{"id": "2"}]'),
    ScoreRow("a", "2.png", "/x/2.png", None, None, None, None, None, None, "", "no image\nat all"),
    ScoreRow("b", "3.png", "/x.zip!/3.png", 1, -1e-300, 0.0, False, None, 0.0),
]
INFO = TableInfo("f00", "shapes3d", {"fdr": 0.1}, {"a": GroupSummary(1, 1, 1, 0.5, "low", "mixture", ("few",))})


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_table_is_read_as_it_was_written(suffix, tmp_path):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / "new" / f"scores{suffix}"
    write_scores(path, ROWS, INFO)
    table = read_scores(path)
    assert table.rows == ROWS
    assert table.info == (None if suffix == ".csv" else INFO)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_an_unfinished_table_leaves_the_former_one_alone(suffix, tmp_path):
    path = tmp_path / f"scores{suffix}"
    path.write_text("former")
    with ScoresWriter(path) as writer:
        writer.write(ROWS)
    assert path.read_text() == "former"
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xlsx", "", "expected one of"),
        ("a.csv", "group,id\n", "no column path"),
        ("a.csv", ",".join(COLUMNS) + "\n,1,1.png,first,,,,,,,,,\n", "rank holds 'first'"),
        ("a.jsonl", '{"group": ""}\n', "does not begin with a line of metadata"),
        ("a.jsonl", f'{{"misfit": {INFO.to_json()}}}\n{{"id"', "no JSON"),
        ("a.parquet", "PAR1", "no complete Parquet"),
    ],
)
def test_other_files_are_refused(name, content, message, tmp_path):
    path = Path(tmp_path, name)
    path.write_text(content)
    with pytest.raises(InvalidInput, match=message):
        read_scores(path)
