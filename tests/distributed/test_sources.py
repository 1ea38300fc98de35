"""Catalogues as partitions."""

import numpy as np
import pytest
from survey_run_cases import in_other_format, make_catalogue, plain_columns, write_parquet

from astrogenspec.distributed.sources import find_files, partitions_of, read_rows, scan_files

ENDINGS = (".parquet", ".fits", ".csv", ".hdf5", ".ecsv", ".vot")


def partitions(source, rows, exact=("object_id",)):
    root, files = find_files(source)
    return root, partitions_of(scan_files(root, files, rows, exact), rows)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("rows", [4, 7, 100])
def test_all_rows_are_read_once(tmp_path, ending, rows):
    table = make_catalogue(23)
    path = tmp_path / f"in{ending}"
    in_other_format(table, path)
    root, found = partitions(path, rows)
    assert [len(p) for p in found] == [min(rows, 23 - k) for k in range(0, 23, rows)]
    assert [p.index for p in found] == list(range(len(found)))
    alone = [partition.alone() for partition in found]
    # What is sent to a worker does not grow with the file.
    assert all(len(partition.file.offsets) <= 2 for partition in alone)
    read = [read_rows(root, partition) for partition in alone]
    for one, partition in zip(read, found, strict=True):
        again = read_rows(root, partition)
        assert again["object_id"].tolist() == one["object_id"].tolist()
    for name, values in plain_columns(table).items():
        joined = np.concatenate([np.asarray(getattr(t[name], "value", t[name])) for t in read])
        np.testing.assert_array_equal(joined, values, err_msg=name)
    assert read[0]["object_id"].dtype.kind == "i"
    if ending not in (".csv", ".vot"):
        assert read[0]["flux_g"].unit == table["flux_g"].unit


def test_the_folder_of_a_hats_catalogue_is_read(tmp_path):
    table = make_catalogue(6)
    for k, part in enumerate(("Npix=1", "Npix=12")):
        folder = tmp_path / "dataset" / "Norder=0" / "Dir=0"
        folder.mkdir(parents=True, exist_ok=True)
        write_parquet(table[3 * k : 3 * k + 3], folder / f"{part}.parquet")
    for name in ("dataset/_metadata", "dataset/data_thumbnail.parquet", "hats.properties"):
        (tmp_path / name).write_bytes(b"other")
    root, found = partitions(tmp_path, 100)
    assert [p.file.path for p in found] == [
        f"dataset/Norder=0/Dir=0/Npix={k}.parquet" for k in (1, 12)
    ]
    assert read_rows(root, found[1])["object_id"].tolist() == table["object_id"][3:].tolist()


def test_a_damaged_file_has_no_rows_and_a_reason(tmp_path):
    write_parquet(make_catalogue(3), tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(content[:-40])
    root, found = partitions(tmp_path, 10)
    assert [len(p) for p in found] == [3, 0]
    with pytest.raises(OSError, match=r"b.parquet cannot be read \(ArrowInvalid"):
        read_rows(root, found[1])


def test_a_file_that_was_cut_later_is_an_error(tmp_path):
    path = tmp_path / "a.parquet"
    write_parquet(make_catalogue(20), path)
    root, found = partitions(path, 10)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(OSError, match="a.parquet cannot be read"):
        read_rows(root, found[1])
    write_parquet(make_catalogue(15), path)
    with pytest.raises(OSError, match="a.parquet, rows 10 to 19: 5 rows were read instead"):
        read_rows(root, found[1])


def test_identifiers_of_csv_keep_their_type_in_all_partitions(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,name,x,y\n0012,a,1,\n0013,b,2.5,3\n\n14,c,,4\n")
    root, found = partitions(path, 1, exact=("id",))
    read = [read_rows(root, p) for p in found]
    assert [t["id"].item() for t in read] == [12, 13, 14]
    assert [t["x"].item() for t in read[:2]] == [1.0, 2.5] and np.isnan(read[2]["x"].item())
    path.write_text("id,name\nA1,a\n2,b\n")
    root, found = partitions(path, 1, exact=("id",))
    assert [read_rows(root, p)["id"].item() for p in found] == ["A1", "2"]


def test_integers_of_csv_with_too_many_digits_are_not_rounded_silently(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"id,x\n{2**63 + 1},1\n")
    root, found = partitions(path, 10, exact=("id",))
    assert read_rows(root, found[0])["id"].dtype.kind == "f"


def test_line_breaks_within_quotes_of_csv_are_an_error(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('id,name\n1,"a\nb"\n')
    root, found = partitions(path, 1)
    with pytest.raises(OSError, match="line 2 has a line break within quotes"):
        read_rows(root, found[0])


def test_wrong_sources_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing does not exist"):
        find_files(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="has no catalogue; files that end in .parquet"):
        find_files(tmp_path)
    (tmp_path / "a.txt").write_text("1")
    with pytest.raises(ValueError, match=r"a.txt ends in none of .parquet"):
        find_files(tmp_path / "a.txt")
    (tmp_path / "a.csv").write_text("1")
    (tmp_path / "b.fits").write_text("1")
    with pytest.raises(ValueError, match=r"files of several formats \(csv, fits\)"):
        find_files(tmp_path)
