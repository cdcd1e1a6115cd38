"""Storage: the same behavior on a local folder and on a real S3 server, and errors that name the setting."""

import pyarrow as pa

from ray_app.storage import Storage, join


def test_roundtrip(storage: Storage) -> None:
    uri = join(storage.root("shop"), "a", "b.bin")
    storage.write_bytes(uri, b"x" * 10)
    assert storage.read_bytes(uri) == b"x" * 10
    assert storage.create(uri, b"no") is False
    data, version = storage.read_versioned(uri)
    assert storage.replace(uri, b"new", version) is True
    assert storage.replace(uri, b"newer", version) is False
    t = pa.table({"a": [1, 2]})
    storage.write_table(join(storage.path, "t.parquet"), t)
    assert storage.read_table(join(storage.path, "t.parquet"), ["a"]) == t
    print(storage.list_files(storage.path))
    storage.delete_tree(storage.path)
    assert storage.list_files(storage.path) == []


def test_ray(ray_cluster):
    import ray
    @ray.remote
    def f(): 
        import os
        return os.environ["RAY_DATA_USE_DATASOURCE_V2"]
    assert ray.get(f.remote()) == "0"
