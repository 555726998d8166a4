#!/usr/bin/env python3
"""Writes the Autobahn fuzzing client's specification, and judges its reports; see autobahn.sh.

    autobahn.py spec URL OUTDIR SHARE CASES     SHARE and CASES: patterns; cases in both are run; exit 1 if none can be
    autobahn.py report COUNT INDEX.json …       exit 1 unless there are COUNT cases (0: any) and each is all right
"""

import collections
import json
import sys

# 7.1.6, 7.13.1 and 7.13.2 are called INFORMATIONAL whatever the server does.
RIGHT = {"OK", "INFORMATIONAL"}


def spec(url, outdir, share, cases):
    mine = share.split()
    wanted = [case for case in cases.split() if case == "*" or f"{case.split('.')[0]}.*" in mine]
    if not wanted:
        sys.exit(1)
    run = mine if "*" in wanted else wanted
    server = {"agent": "byway", "url": url, "options": {"version": 18}}
    spec = {"outdir": outdir, "servers": [server], "cases": run, "exclude-cases": [], "exclude-agent-cases": {}}
    json.dump(spec, sys.stdout)


def report(count, indexes):
    results = {}
    for index in indexes:
        with open(index) as file:
            for agent in json.load(file).values():
                results.update(agent)
    for kind in ("behavior", "behaviorClose"):
        counts = collections.Counter(result[kind] for result in results.values())
        text = ", ".join(f"{number} {name}" for name, number in counts.most_common())
        print(f"autobahn: {len(results)} cases, {kind}: {text}")
    wrong = [
        f"{case} {result['behavior']}, closing {result['behaviorClose']}"
        for case, result in results.items()
        if not {result["behavior"], result["behaviorClose"]} <= RIGHT
    ]
    if wrong:
        print("autobahn: not all right:", "; ".join(wrong), file=sys.stderr)
    if not results or count and len(results) != count:
        print(f"autobahn: {len(results)} cases were run instead of {count or 'any'}", file=sys.stderr)
        wrong.append("count")
    sys.exit(bool(wrong))


def main():
    match sys.argv[1:]:
        case ["spec", url, outdir, share, cases]:
            spec(url, outdir, share, cases)
        case ["report", count, *indexes]:
            report(int(count), indexes)
        case _:
            sys.exit(__doc__)


main()
