"""
Make the reference of job files, `docs/job-file.md`, from the models: every key in plain words, in the grammar's order.

``python -m runner.reference`` prints it.
"""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter

from runner import scalars, spec
from runner.schema import schema

_INTRODUCTION = """\
# The job file

Every key of the grammar, made from its models by `make schema`: this page, the editors' schema (`runner schema`) and
`runner validate` say the same. `jobs/` has files to start from; the [tutorial](tutorial.md) begins at the beginning.

- **YAML 1.2**: `on`, `no` and `1:30` are text. Unknown and doubled keys are refused; a key with nothing behind it is as
  if it were not there, save where it takes a default of `defaults` away.
- **A duration** is a number and a unit: `500ms`, `90s`, `5m`, `2h`, `1d`. **A rate** is `950/10s` or `5/s`,
  **an amount** `5.00 USD`, **a size** `20 MiB`.
- **A template** is text with `{{ … }}` in it, which is Jinja2, strict and sandboxed. Alone in a text it keeps its type.
  **An expression** is what would stand between the braces, without them.
- **A reference** is `${VAR}` or `${VAR:-default}`: the environment variable, where a key says so, and in `vars`.
- **Paths** start at the job file's folder.
"""

_PERCENTAGE: str = TypeAdapter(scalars.RunLimit).json_schema(mode="validation")["anyOf"][1]["pattern"]


def _pattern(kind: Any) -> str:
    """The pattern of a text of *kind*, which is the first of what it may be."""
    found = TypeAdapter(kind).json_schema(mode="validation")
    pattern: str = found.get("anyOf", [found])[0]["pattern"]
    return pattern


_WORDS = {_PERCENTAGE: "percentage"} | {
    _pattern(kind): word
    for kind, word in {
        scalars.Duration: "duration",
        scalars.Wait: "duration, also 0s",
        scalars.RateLimit: "rate",
        scalars.Usd: "amount",
        scalars.Size: "size",
        spec.CountThreshold: "bound on a number or a share of runs",
        spec.TimeThreshold: "bound on p50, p90, p95, p99, max or mean",
        spec.CostThreshold: "bound on an amount",
    }.items()
}
_TYPES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
    "object": "mapping",
    "array": "list",
}
_EXAMPLES = {
    "": """\
version: 1
name: horses
vars: {style: ink}
endpoints: {sdxl: {id: "${SDXL_ENDPOINT_ID}"}}
jobs: {photos: {endpoint: sdxl, input: {prompt: "A horse, {{ vars.style }}"}}}
""",
    "endpoints.*": """\
endpoints:
  sdxl:
    id: ${SDXL_ENDPOINT_ID}
    concurrency: 100
    rate_limits: {run: 500/10s}
    cost_per_second: 0.00031
""",
    "LocalEndpoint": """\
endpoints:
  quick: {handler: "handlers/horse.py:handler", workers: 4}
  real: {command: python3 handlers/horse.py}
  elsewhere: {external: true}
""",
    "jobs.*": """\
jobs:
  photos:
    endpoint: sdxl
    mode: sync
    input: {prompt: a horse, seed: 7}
    success_when: output.image is defined
""",
    "jobs.*.rows": """\
jobs:
  photos:
    endpoint: sdxl
    rows:
      file: data/prompts.csv
      where: row.lang == 'en'
      limit: 100
      matrix: {seed: [1, 2, 3], size: [512, 1024]}
      exclude: [{seed: 3, size: 1024}]
    input: {prompt: "{{ row.prompt }}", seed: "{{ matrix.seed }}", size: "{{ matrix.size }}"}
""",
    "jobs.*.policy": """\
jobs:
  photos:
    endpoint: sdxl
    input: {prompt: a horse}
    policy: {execution_timeout: 5m, ttl: 1h}
    timeouts: {request: 30s, run: 2h, job: 4h}
    retry: {attempts: 3, outcomes: [timed_out, crashed, lost], wait_max: 2m}
    stop_when: {failed: 10%}
""",
    "jobs.*.s3_config": """\
jobs:
  photos:
    endpoint: sdxl
    input: {prompt: a horse}
    s3_config:
      access_id: ${S3_ACCESS_ID}
      access_secret: ${S3_SECRET}
      bucket_name: horses
      endpoint_url: https://s3.example.com
""",
    "jobs.*.artifacts": """\
jobs:
  photos:
    endpoint: sdxl
    input: {prompt: a horse}
    artifacts:
      - {path: "images/{{ run.index }}.png", base64: "{{ output.image }}"}
      - {path: "boxes/{{ run.key }}.json", json: "{{ output.boxes }}"}
""",
    "defaults": """\
defaults:
  endpoint: sdxl
  retry: {attempts: 3}
  timeouts: {run: 1h}
jobs:
  first: {input: {prompt: a horse}}
  second: {input: {prompt: two horses}, retry: {wait_initial: 5s}, timeouts: {run: null}}
""",
    "profiles.*": """\
endpoints:
  sdxl: {handler: "handlers/horse.py:handler"}
profiles:
  staging:
    endpoints: {sdxl: {id: "${STAGING_ENDPOINT_ID}"}}
    defaults: {stop_when: {failed: 1}}
  prod:
    endpoints: {sdxl: {id: "${SDXL_ENDPOINT_ID}", cost_per_second: 0.00031}}
    thresholds: {failed: "< 1%"}
""",
    "schedule": """\
schedule: {every: weekday at 02:30, time_zone: Europe/Berlin}
outputs: {dir: ../batches, keep: {succeeded: 10, failed: 20}}
""",
    "outputs": """\
outputs: {dir: ../batches}
""",
    "health": """\
health: {every: 30s, wait: 10m, require: {workers_ready: 1}}
""",
    "thresholds": """\
thresholds:
  failed: {bound: "< 1%", abort: true}
  execution_time: ["p95 < 30s", "max < 2m"]
""",
}
"""A part of a job file for each place that is easier shown than said."""

_IN_DEFAULTS = {("jobs.*", "endpoint"), ("jobs.*", "input")}
"""Keys that every job must have, from the defaults if not by itself."""


def text() -> str:
    """The reference as the file has it."""
    return "\n".join([_INTRODUCTION, *_sections()])


def _sections() -> Iterator[str]:
    found = schema()
    parts = {"WrittenJobFile": found, **found["$defs"]}
    places = {place: model.__name__ for place, model in spec.MODELS.items()}
    places = places | {"defaults": "Defaults", "profiles.*": places.pop("profiles.*")}
    of_model = {name: place for place, name in reversed(places.items())} | {"LocalEndpoint": "LocalEndpoint"}
    for place, model in places.items():
        if of_model[model] != place:
            continue  # the same keys as in a place that is shown
        yield _section(place, parts[model], of_model)
        if place == "endpoints.*":
            yield _section("LocalEndpoint", parts["LocalEndpoint"], of_model)


def _section(place: str, part: dict[str, Any], of_model: dict[str, str]) -> str:
    """One place of the grammar: what it is for, its keys, an example."""
    lines = [f"## {_title(place)}", "", " ".join(part["description"].split()), ""]
    if place == "defaults":
        own = " and ".join(f"`{key}`" for key in spec.OWN)
        lines += [f"All keys of [{_title('jobs.*')}]({_anchor('jobs.*')}) but {own}; null in a job takes one away.", ""]
    else:
        lines += ["| key | value | default | |", "|---|---|---|---|"]
        for key, told in part["properties"].items():
            is_needed = key in part.get("required", ()) or (place, key) in _IN_DEFAULTS
            default = _code(told["default"]) if told.get("default", "") != "" else "*required*" if is_needed else ""
            cells = [f"`{key}`", _kind(told, of_model), default, _description(told)]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    if place in _EXAMPLES:
        lines += ["```yaml", _EXAMPLES[place] + "```", ""]
    return "\n".join(lines)


def _title(place: str) -> str:
    if place == "LocalEndpoint":
        return "endpoints.NAME, on this machine"
    shown = place.replace("*", "NAME") or "At the top"
    return f"{shown}, on RunPod" if place == "endpoints.*" else shown


def _anchor(place: str) -> str:
    """The link to the section of *place*, as GitHub makes it of its title."""
    return "#" + "".join(c for c in _title(place).lower().replace(" ", "-") if c.isalnum() or c in "-_")


def _description(told: dict[str, Any]) -> str:
    examples = " or ".join(_code(example) for example in told.get("examples", ()))
    description: str = told.get("description", "")
    return f"{description} Such as {examples}." if examples else description


def _code(value: Any) -> str:
    """*value* as a job file may have it."""
    written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"`{written}`"


def _kind(told: dict[str, Any], of_model: dict[str, str]) -> str:
    """What a value may be, in words."""
    if "$ref" in told:
        place = of_model[told["$ref"].rpartition("/")[2]]
        return f"[mapping]({_anchor(place)})"
    for alternatives in ("anyOf", "oneOf"):
        if alternatives in told:
            kinds = [_kind(one, of_model) for one in told[alternatives] if one.get("type") != "null"]
            if kinds[2:] == [f"list of {' or '.join(kinds[:2])}"]:
                return f"{', '.join(kinds[:2])}, or list of these"
            return " or ".join(dict.fromkeys(kinds))
    if "const" in told:
        return _code(told["const"])
    if "enum" in told:
        *first, last = map(_code, told["enum"])
        return f"{', '.join(first)} or {last}"
    if "patternProperties" in told:
        (inner,) = told["patternProperties"].values()
        return f"{_kind(inner, of_model)} by name"
    if told.get("items"):
        return f"list of {_kind(told['items'], of_model)}"
    types = told.get("type", [])
    words = [_TYPES[one] for one in ([types] if isinstance(types, str) else types)]
    kind = _WORDS.get(told.get("pattern", ""), " or ".join(words) or "any YAML")
    return f"{kind} from {told['minimum']}" if told.get("minimum") else kind


if __name__ == "__main__":
    print(text(), end="")
