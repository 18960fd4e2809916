"""RESULTS.md from the lines of a run: a section a race, rewritten only for the races in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RESULTS = Path(__file__).with_name("RESULTS.md")
COLUMNS = (
    "ours", "peer", "ours s", "peer s", "ratio", "95% lower bound", "target", "met",
    "CPU s ours / peer", "peak MiB ours / peer",
)  # fmt: skip
_MET = {True: "yes", False: "**no**", None: "-"}


def write_results(lines: Sequence[dict[str, Any]], file: Path) -> None:
    """Put a run's figures between the marks of their races; other races keep theirs."""
    text = file.read_text(encoding="utf-8")
    for race in dict.fromkeys(line["race"] for line in lines):
        section = render_race([line for line in lines if line["race"] == race])
        begin, end = f"<!-- {race}: begin -->", f"<!-- {race}: end -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"'{file}' must hold the marks '{begin}' and '{end}'; add them.")
        text = pattern.sub(lambda _, s=section, b=begin, e=end: f"{b}\n{s}{e}", text)
    file.write_text(text, encoding="utf-8")


def render_race(lines: Sequence[dict[str, Any]]) -> str:
    """Return one race's section: what was measured, the table, the quality gate, the losses."""
    first = lines[0]
    parts = [_about(first), "", _table(lines), ""]
    parts += [f"- {_quality(line)}" for line in lines]
    notes = {name: note for line in lines for name, note in line["notes"].items() if note}
    parts += ["", *(f"- `{name}`: {note}." for name, note in notes.items()), ""]
    return "\n".join(parts)


def _about(line: dict[str, Any]) -> str:
    machine, found = line["hardware"], line["versions"]
    size = {"full": "", "quick": " (quick: a first idea)", "tiny": " (tiny: no figure)"}
    quiet = "" if line["quiet"] else "; **the machine was not quiet, repeat this run**"
    versions = ", ".join(f"{name} {version}" for name, version in found.items())
    boosting = f", {line['boost_rounds']} boosting rounds" if "boost_rounds" in line else ""
    of = f"{line['rows']:,} rows" if "rows" in line else f"{line['trials']:,} trials"
    data = f"; data SHA-256 `{line['data_digest'][:16]}`" if "data_digest" in line else ""
    rounds = "1 round" if line["rounds"] == 1 else f"{line['rounds']} rounds"
    return (
        f"Metric: {line['metric']}. {of}{boosting}, {rounds} each "
        f"in turn after a warm-up{size[line['size']]}{data}.\n\n"
        f"{machine['cpu']}, {machine['cores']} cores of which {line['threads']} were used by both "
        f"sides, {machine['memory_gib']} GiB, {machine['system']}, Python {machine['python']}; "
        f"1 GiB copied at {line['copy_gib_s']} GiB/s; load {line['load_1m']}{quiet}. {versions}."
    )


def _table(lines: Iterable[dict[str, Any]]) -> str:
    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *(_row(line) for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(line: dict[str, Any]) -> tuple[str, ...]:
    return (
        line["lane"],
        line["peer"],
        _number(line["ours"]),
        _number(line["theirs"]),
        _number(line["ratio"]),
        _number(line["lower95"]),
        _number(line["target"]),
        _MET[line["pass"]],
        _pair(line["cpu_s"]),
        _pair(line["rss_mib"]),
    )


def _quality(line: dict[str, Any]) -> str:
    sides = f"{line['lane']} and {line['peer']}"
    if line["errors"]:
        failed = "; ".join(f"{name}: {error}" for name, error in line["errors"].items())
        return f"{sides}: **no figure**, {failed}."
    held = "held" if line["quality"]["holds"] else "**FAILED**"
    both = line.get("rounds_of_both", line["rounds"])
    fewer = f" (the {both} rounds that both did)" if both < line["rounds"] else ""
    return f"{sides}: quality gate {held}: {line['quality']['seen']}{fewer}."


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _pair(pair: dict[str, float | None]) -> str:
    return " / ".join("-" if pair[s] is None else f"{pair[s]:.0f}" for s in ("ours", "theirs"))
