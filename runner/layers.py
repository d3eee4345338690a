"""
Lay the layers of a job file over one another: `defaults` below each job, a profile over the file.

It is done on what is written, before any model sees it, and remembers where each part of the outcome stands, so that a
problem with it is told there.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import field

from runner import spec
from runner.errors import Via
from runner.records import record
from runner.values import JsonObject, JsonValue
from runner.wording import Loc

_OVER_THE_FILE = [key for key in spec.keys(spec.Profile) if key not in ("description", "defaults")]
"""The parts of a profile that are laid over the file's part of the same name, key by key."""


@record(frozen=True)
class Layers:
    """
    What a job file comes to under *profile*, None being none: *value* has neither `defaults` nor `profiles`.

    *origins* has the place of each part that may be written elsewhere than where it takes effect; *unused* are the
    defaults that every job has something else for.
    """

    value: JsonObject
    profile: str | None = None
    origins: Mapping[Loc, Loc] = field(default_factory=dict, repr=False)
    unused: Sequence[Loc] = field(default=(), repr=False)

    def origin(self, loc: Loc) -> Loc:
        """Where the part at *loc* is written."""
        for length in range(len(loc), 0, -1):
            if (found := self.origins.get(loc[:length])) is not None:
                return (*found, *loc[length:])
        return loc

    def via(self, loc: Loc) -> Via | None:
        """How the part at *loc* comes there; None when it is written there."""
        origin = self.origin(loc)
        if origin == loc:
            return None
        profile = self.profile if origin[0] == "profiles" else None
        jobs = self.value.get("jobs")
        if loc[0] != "jobs" or not isinstance(jobs, dict):
            return Via(None, frozenset(), profile)
        sharing = frozenset(name for name in jobs if self.origin(("jobs", name, *loc[2:])) == origin)
        return Via(str(loc[1]) if len(jobs) > 1 else None, sharing, profile)


def profiles(written: JsonObject) -> list[str]:
    """The names of the profiles of the job file *written*."""
    return list(_mapping(written.get("profiles")))


def lay(written: JsonObject, profile: str | None = None) -> Layers:
    """
    The job file *written*, under *profile*.

    A part that is not what it must be to be laid anywhere is left out; that is told where it stands.
    """
    value = {key: part for key, part in written.items() if key not in ("defaults", "profiles")}
    chosen = _mapping(_mapping(written.get("profiles")).get(profile)) if profile is not None else {}
    origins: dict[Loc, Loc] = {}
    if profile is not None:
        over = {key: chosen[key] for key in _OVER_THE_FILE if isinstance(chosen.get(key), dict)}
        value = _stacked([((), value), (("profiles", profile), over)], (), _OVER_THE_FILE, origins)
    parts = [(("defaults",), written), (("profiles", profile or "", "defaults"), chosen)]
    shared: list[tuple[Loc, JsonObject]] = [
        (at, _shareable(part["defaults"])) for at, part in parts if "defaults" in part
    ]
    jobs = value.get("jobs")
    if isinstance(jobs, dict) and shared:
        value["jobs"] = {
            name: _stacked([*shared, (("jobs", name), job)], ("jobs", name), spec.SETTINGS, origins)
            if isinstance(job, dict)
            else job
            for name, job in jobs.items()
        }
    taken = set(origins.values())
    unused = [(*at, key) for at, part in shared for key in part if not _is_taken((*at, key), part[key], taken)]
    return Layers(value, profile, origins, unused)


def secret_texts(written: JsonValue) -> Iterator[str]:
    """The texts that refer to secrets in the endpoints, defaults and profiles of *written*, chosen or not."""
    for key, part in _mapping(written).items():
        if isinstance(part, str) and key in ("api_key", "webhook", "access_secret"):
            yield part
        yield from secret_texts(part)


def copied(written: JsonObject) -> int:
    """How many values the jobs of *written* take from its defaults and those of its profiles, at most."""
    parts = [_mapping(part).get("defaults") for part in _mapping(written.get("profiles")).values()]
    sizes = [_size(part) for part in (written.get("defaults"), *parts)]
    return sum(sizes) * len(_mapping(written.get("jobs")))


def _stacked(
    layers: Iterable[tuple[Loc, JsonObject]], at: Loc, merged: Collection[str], origins: dict[Loc, Loc]
) -> JsonObject:
    """
    One mapping for *at*, of *layers* that are each written at a place, the lowest first.

    Mappings at keys of *merged* are merged key by key, all else is replaced whole.
    """
    result: JsonObject = {}
    for origin, layer in layers:
        for key, part in layer.items():
            below = result.get(key)
            result[key] = part
            origins[(*at, key)] = (*origin, key)
            if key in merged and isinstance(part, dict):
                result[key] = below | part if isinstance(below, dict) else part
                origins.update({(*at, key, inner): (*origin, key, inner) for inner in part})
    return result


def _is_taken(at: Loc, part: JsonValue, taken: Collection[Loc]) -> bool:
    """Whether something that takes effect is written at *at*, or right below it."""
    return at in taken or (isinstance(part, dict) and any((*at, key) in taken for key in part))


def _shareable(part: JsonValue) -> JsonObject:
    """The defaults in *part* that jobs can have; what is no mapping is taken to give them what they must have."""
    if not isinstance(part, dict):
        return {"endpoint": "", "input": "x"}
    known = spec.keys(spec.Defaults)
    return {key: inner for key, inner in part.items() if key in known}


def _mapping(part: JsonValue) -> JsonObject:
    return part if isinstance(part, dict) else {}


def _size(part: JsonValue) -> int:
    """How many values there are in *part*, with itself."""
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return 1 + sum(map(_size, inner))
