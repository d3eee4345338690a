"""What a refused draft lets us conclude: that the key is wrong, that the Batch API is not for it, or nothing yet."""

import pytest
from fakes import Scene, http, in_virtual_time

from runner.answers import EndpointHealth
from runner.drafts import Drafts
from runner.errors import EndpointRefused, RunPodError
from runner.runpod_batches import RunPodBatches

WELL = EndpointHealth(jobs={}, workers={"ready": 1})


class Api(RunPodBatches):
    """Answers creates as it was told to, the last answer again and again."""

    def __init__(self, scene: Scene, *answers: RunPodError | str) -> None:
        self._history = scene.history
        self._answers = list(answers)

    async def create(self) -> str:
        self._history.append("create")
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, RunPodError):
            raise answer
        return answer

    async def name(self, batch_id: str, name: str) -> None:
        self._history.append(f"name {batch_id}")


def drafts(scene: Scene, *answers: RunPodError | str) -> Drafts:
    """What makes drafts at the scene's endpoint, where creates are answered so."""
    return Drafts(
        "photos",
        label="batch",
        next_number=lambda: 1,
        api=Api(scene, *answers),
        endpoint=scene.endpoint,
        recorder=scene.recorder,
        clock=scene.clock,
        switch=scene.switch,
        paused_s=300.0,
    )


def asked(scene: Scene) -> list[str]:
    """The creates, and the looks at /health between them."""
    return [words for words in scene.history if words in ("create", "health")]


@in_virtual_time
async def test_a_403_while_health_answers_is_about_the_batch_api() -> None:
    """The key may use the endpoint, so another mode may help."""
    scene = Scene()
    with pytest.raises(EndpointRefused) as caught:
        await drafts(scene, http(403)).begin()
    assert str(caught.value) == f"no batch can be made: {http(403).message}"
    assert caught.value.fix == "write mode: async"
    assert scene.endpoint.refusal is None


@in_virtual_time
async def test_a_403_that_health_says_nothing_of_is_asked_again() -> None:
    """To tell of the Batch API what is true of the key would send people to another mode, that fails alike."""
    scene = Scene()
    scene.runpod.will_say("health", http(500), http(500), http(500), http(403))
    with pytest.raises(EndpointRefused) as caught:
        await drafts(scene, http(403)).begin()
    assert caught.value is scene.endpoint.refusal
    assert caught.value.fix == "check that the endpoint's 'api_key' may use this endpoint"
    assert asked(scene) == ["create", "health", "health", "create", "health", "health"]
    assert scene.clock.elapsed_s >= 0.5


@in_virtual_time
async def test_a_403_of_a_bad_moment_costs_a_second() -> None:
    scene = Scene()
    scene.runpod.will_say("health", http(500), http(500), WELL)
    draft = await drafts(scene, http(403), "b-1").begin()
    assert draft.batch_id == "b-1"
    assert asked(scene) == ["create", "health", "health", "create"]


@in_virtual_time
async def test_a_key_that_is_refused_between_two_looks_is_said() -> None:
    """The first look may have met the moment before."""
    scene = Scene()
    scene.runpod.will_say("health", http(500), http(403))
    with pytest.raises(EndpointRefused) as caught:
        await drafts(scene, http(403)).begin()
    assert caught.value is scene.endpoint.refusal
    assert asked(scene) == ["create", "health", "health"]
