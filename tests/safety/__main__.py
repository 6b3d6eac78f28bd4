"""`python -m tests.safety references` and `... soak`: memory that must not grow, by workload.

references   exact: references (in a debug build of CPython), blocks, bytes and descriptors that
             each round of a workload leaves behind
soak         a million operations of each workload, and the process's size after every tenth

The exit status is 1 if anything grew.
"""

import argparse
import sys

from tests.safety import measures
from tests.safety.catalogue import WORKLOADS
from tests.safety.references import COUNT, growth, runtime
from tests.safety.soak import soak


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.safety",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=["references", "soak"])
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="default: all")
    parser.add_argument("--aio", default="rondel", help="rondel or asyncio (rondel)")
    parser.add_argument("--operations", type=int, default=1_000_000, help="of a soak (1000000)")
    parser.add_argument("--count", type=int, default=COUNT, help=f"operations of a round ({COUNT})")
    args = parser.parse_args()
    unknown = set(args.workloads) - set(WORKLOADS)
    if unknown:
        parser.error(f"no such workload: {', '.join(sorted(unknown))}; there are {[*WORKLOADS]}")
    return args


def main() -> int:
    args = arguments()
    aio = runtime(args.aio)
    chosen = [w for w in WORKLOADS.values() if not args.workloads or w.name in args.workloads]
    print(f"CPython {sys.version.split()[0]}, {args.aio}", flush=True)
    failed = []
    for workload in chosen:
        if args.what == "references":
            grown = growth(aio, workload, args.count)
            leaks, text = grown.leaks(), str(grown)
        else:
            soaked = soak(aio, workload, args.operations)
            leaks = soaked.leaks()
            text = (
                f"{soaked.operations:>8} operations in {soaked.seconds:5.1f} s, MiB at each tenth: "
                + " ".join(f"{size / 2**20:.1f}" for size in soaked.sizes)
                + f", grown {soaked.grown / 1024:+.0f} KiB"
            )
        if leaks:
            failed.append(workload.name)
        print(f"{'LEAKS' if leaks else 'ok':5} {workload.name:28} {text}", flush=True)
    if args.what == "references" and measures.references is None:
        print("(references are counted in a debug build of CPython only)")
    if failed:
        print("grew: " + ", ".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
