"""Thousands of right and wrong requests to every route, made from the OpenAPI description by schemathesis.

    python benchmarks/api_cases.py --config X.yaml --envs OUTSIDE [--cases 5000] [key=value ...]

The application runs on plain uvicorn; schemathesis gets an environment of its own in OUTSIDE, made with uv when it is
not there. No answer may be a 5xx, and each must have a status, a content type and a body that its route describes.
Wrong requests are asked as often as right ones. Exit code 1 if an answer is not so, or if there were fewer cases.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from serving import plain
from throughput import environment

PACKAGES = ("schemathesis==4.32.5",)
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
SHARING = 12
"""Of 14 routes those that have so many cases."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--envs", type=Path, required=True, help="folder for the environment of schemathesis")
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args()
    python = environment(arguments.envs / "schemathesis", PACKAGES)
    with plain(arguments.config, arguments.overrides) as (url, _), tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        each = arguments.cases // SHARING  # some have no more to be asked; hundreds are the same in every run
        command = [str(python.parent / "schemathesis"), "run", f"{url}/openapi.json", f"--checks={CHECKS}"]
        command += ["--phases=examples,coverage,fuzzing", f"--max-examples={each}", f"--seed={arguments.seed}"]
        command += ["--continue-on-failure", "--no-shrink", "--suppress-health-check=all"]
        command += ["--report=json", f"--report-json-path={report}"]
        code = subprocess.run(command, cwd=folder, check=False).returncode
        cases = json.loads(report.read_text())["test_cases"]
    print(f"{cases['generated']:,} cases, {cases['with_failures']} with failures, {cases['errored']} not answered")
    return int(code != 0 or cases["generated"] < arguments.cases)


if __name__ == "__main__":
    sys.exit(main())
