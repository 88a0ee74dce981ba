"""Which server and device a fragment goes to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ort_optim.cluster.jobs import Job, Resources
from ort_optim.cluster.placement.capacity import Capacity, Chooser, Devices, Inventory
from ort_optim.cluster.placement.fragmentation import Mix, States, fragments, usable_and_room
from ort_optim.cluster.placement.planner import plan
from ort_optim.cluster.placement.rooms import Placements, Rooms
from ort_optim.cluster.placement.scoring import (
    BestFitLoss,
    FragmentationLoss,
    Loss,
    RandomChooser,
    RoomLoss,
    Scorer,
    room_chooser,
)
from ort_optim.cluster.servers import Cluster, Gpus, Server

SHARE = Resources(milli_cpus=1000, milli_gpus=300, memory=1)
WHOLE = Resources(milli_cpus=4000, milli_gpus=1000, memory=2)
PAIR = Resources(milli_cpus=4000, milli_gpus=2000, memory=2, gpu_models=frozenset({"A"}))
PLAIN = Resources(milli_cpus=3000, memory=3)
NEEDS = (
    *(SHARE, WHOLE, PAIR, PLAIN),
    Resources(milli_cpus=2000, milli_gpus=700, memory=1, gpu_models=frozenset({"B"})),
    Resources(milli_cpus=500, milli_gpus=500, memory=1, gpu_memory=6),
)


def server(name: str, cpus: int, gpus: int, model: str = "A") -> Server:
    return Server(name, "two", cpus * 1000, 32, Gpus(model, gpus, 10) if gpus else None)


CLUSTER = Cluster(
    (
        *(server("a", 16, 4), server("b", 8, 2, "B"), server("c", 32, 2), server("d", 8, 0)),
        *(server("e", 16, 4), server("f", 4, 4)),
    )
)


def mix_of(inventory: Inventory, needs: tuple[Resources, ...] = NEEDS) -> Mix:
    return Mix.of([(need, 1.0 + place) for place, need in enumerate(needs)], inventory.models)


def choose(chooser: Chooser, need: Resources, capacity: Capacity) -> tuple[str, Devices] | None:
    """The chooser's answer, by name; None where the job fits nowhere."""
    fitting = capacity.fitting(need, np.flatnonzero(capacity.inventory.admits(need)))
    if not len(fitting):
        return None
    answer = chooser(need, capacity, fitting)
    assert answer is not None
    return capacity.inventory.names[answer[0]], answer[1]


def put(chooser: Chooser, need: Resources, capacity: Capacity) -> str | None:
    """Choose and take; the server's name."""
    answer = choose(chooser, need, capacity)
    if answer is None:
        return None
    name, devices = answer
    capacity.take(capacity.placement(need, capacity.inventory.index[name], devices))
    return name


def states_of(capacity: Capacity) -> States:
    return States(
        capacity.milli_cpus, capacity.memory, capacity.device_milli, capacity.inventory.model
    )


@pytest.fixture
def inventory() -> Inventory:
    return Inventory.of(CLUSTER)


def losses(inventory: Inventory) -> dict[str, Loss]:
    mix = mix_of(inventory)
    return {"room": RoomLoss(mix), "FGD": FragmentationLoss(mix), "best fit": BestFitLoss()}


sequences = st.lists(st.sampled_from(NEEDS), min_size=1, max_size=25)


@given(sequences)
@settings(deadline=None)
def test_room_lost_is_what_the_plain_definition_gives(needs: list[Resources]) -> None:
    inventory = Inventory.of(CLUSTER)
    mix = mix_of(inventory)
    random = np.random.default_rng(len(needs))
    next_job, many_jobs = random.random(len(mix.share)), random.random(len(mix.share))
    rooms = Rooms(mix, next_job, many_jobs)
    capacity = Capacity(inventory)
    rooms.follow(capacity, np.arange(len(CLUSTER.servers)))

    def room() -> float:
        one, many = usable_and_room(states_of(capacity), mix)
        return float((one @ next_job + many @ many_jobs).sum())

    chooser = RandomChooser(seed=len(needs))
    for need in needs:
        answer = choose(chooser, need, capacity)
        if answer is None:
            continue
        name, devices = answer
        place = inventory.index[name]
        placements = Placements(
            need=need,
            servers=np.array([place]),
            origin=np.array([0]),
            device=np.array([devices[0][0] if devices else 0]),
        )
        before, lost = room(), rooms.lost(capacity, placements)
        capacity.take(capacity.placement(need, place, devices))
        rooms.follow(capacity, np.array([place]))
        assert lost == pytest.approx([before - room()], abs=1e-6)


@given(sequences, st.sampled_from(["room", "FGD", "best fit"]))
@settings(deadline=None)
def test_a_scorer_that_saw_all_changes_answers_as_a_new_one(
    needs: list[Resources], loss: str
) -> None:
    inventory = Inventory.of(CLUSTER)
    capacity = Capacity(inventory)
    lasting = Scorer(losses(inventory)[loss])
    taken = []
    for place, need in enumerate(needs):
        answer = choose(lasting, need, capacity)
        assert answer == choose(Scorer(losses(inventory)[loss]), need, capacity)
        if answer is not None:
            name, devices = answer
            placement = capacity.placement(need, inventory.index[name], devices)
            capacity.take(placement)
            taken.append(placement)
        if place % 5 == 4 and taken:
            capacity.give(taken.pop(0))


def test_forgotten_scores_are_made_again(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, capacity = room_chooser(NEEDS, inventory), Capacity(inventory)
    wanted = [choose(kept, need, capacity) for need in NEEDS * 2]
    monkeypatch.setattr("ort_optim.cluster.placement.scoring.MOST_SCORED", 2)
    forgetful = room_chooser(NEEDS, inventory)
    assert [choose(forgetful, need, capacity) for need in NEEDS * 2] == wanted


def test_a_scorer_may_look_at_copies_of_a_capacity_in_turn(inventory: Inventory) -> None:
    full, empty = Capacity(inventory), Capacity(inventory)
    scorer = Scorer(RoomLoss(mix_of(inventory)))
    for _ in range(6):
        put(scorer, WHOLE, full)
    assert choose(scorer, WHOLE, empty) == choose(Scorer(RoomLoss(mix_of(inventory))), WHOLE, empty)
    assert choose(scorer, SHARE, full) == choose(Scorer(RoomLoss(mix_of(inventory))), SHARE, full)


@given(sequences)
@settings(deadline=None)
def test_fgd_takes_the_server_and_device_with_the_least_growth_in_whole_points(
    needs: list[Resources],
) -> None:
    inventory = Inventory.of(CLUSTER)
    mix = mix_of(inventory)
    capacity = Capacity(inventory)
    scorer = Scorer(FragmentationLoss(mix))

    def growth(need: Resources, place: int, devices: Devices) -> float:
        before = fragments(states_of(capacity), mix)[place]
        trial = capacity.copy()
        trial.take(trial.placement(need, place, devices))
        return float(fragments(states_of(trial), mix)[place] - before)

    def points(value: float) -> int:
        return int(100 / (1 + np.exp(value / 1000)))

    for need in needs:
        answer = choose(scorer, need, capacity)
        if answer is None:
            continue
        name, devices = answer
        place = inventory.index[name]
        chosen = growth(need, place, devices)
        fitting = capacity.fitting(need, np.flatnonzero(inventory.admits(need)))
        for other in fitting:
            usable = capacity.usable_devices(need, int(other))
            ways: list[Devices] = [()]
            if need.whole_devices:
                ways = [tuple((int(each), 1000) for each in usable[: need.whole_devices])]
            elif need.milli_gpus:
                ways = [((int(each), need.milli_gpus),) for each in usable]
            best = max(points(growth(need, int(other), way)) for way in ways)
            # A growth on the edge between two points may fall on either side of it.
            assert points(chosen - 1e-6) >= best or points(chosen) + 1 >= best == points(
                min(growth(need, int(other), way) for way in ways) - 1e-6
            )
        put(scorer, need, capacity)


def test_a_share_goes_beside_another_so_that_servers_stay_whole() -> None:
    cluster = Cluster((server("a", 16, 4), server("b", 16, 4)))
    capacity = Capacity(Inventory.of(cluster))
    scorer = room_chooser([SHARE, SHARE, Resources(milli_gpus=4000)], capacity.inventory)
    first = put(scorer, SHARE, capacity)
    assert put(scorer, SHARE, capacity) == first
    assert sorted(capacity.device_milli.ravel().tolist())[0] == 400


def test_a_job_without_gpus_goes_where_it_costs_jobs_with_gpus_nothing(
    inventory: Inventory,
) -> None:
    scorer = room_chooser([WHOLE] * 3 + [PLAIN], inventory)
    assert put(scorer, PLAIN, Capacity(inventory)) == "d"


def test_cpus_that_gpus_need_are_left_to_them() -> None:
    # Both have four GPUs; on "lean" each GPU's job needs all of its part of the CPUs.
    cluster = Cluster((server("lean", 16, 4), server("rich", 64, 4)))
    capacity = Capacity(Inventory.of(cluster))
    scorer = room_chooser([WHOLE, PLAIN], capacity.inventory)
    assert {put(scorer, PLAIN, capacity) for _ in range(8)} == {"rich"}


def test_a_rare_model_is_left_to_jobs_that_ask_for_it(inventory: Inventory) -> None:
    picky = Resources(milli_cpus=1000, milli_gpus=1000, gpu_models=frozenset({"B"}))
    scorer = room_chooser([picky] * 5 + [WHOLE], inventory)
    capacity = Capacity(inventory)
    places = [put(scorer, WHOLE, capacity) for _ in range(6)]
    assert "b" not in places


def test_best_fit_takes_the_server_with_the_least_left() -> None:
    cluster = Cluster((server("a", 64, 8), server("b", 8, 2), server("c", 32, 2)))
    assert put(Scorer(BestFitLoss()), WHOLE, Capacity(Inventory.of(cluster))) == "b"


def test_random_is_the_same_again_for_a_seed_and_uses_many_servers(inventory: Inventory) -> None:
    def places(seed: int) -> list[str | None]:
        capacity, chooser = Capacity(inventory), RandomChooser(seed)
        return [put(chooser, SHARE, capacity) for _ in range(20)]

    assert places(1) == places(1)
    assert len({*places(1)}) > 2


@pytest.mark.parametrize("needs", [[], [PLAIN], [Resources(servers=1, milli_gpus=1000)]])
def test_without_any_job_of_gpus_the_fullest_server_is_taken(
    needs: list[Resources], inventory: Inventory
) -> None:
    chooser = room_chooser(needs, inventory)
    capacity = Capacity(inventory)
    assert put(chooser, PLAIN, capacity) == "d"


def test_a_server_without_gpus_has_no_room_for_them() -> None:
    inventory = Inventory.of(Cluster((server("only", 8, 0),)))
    chooser = room_chooser([SHARE, PLAIN], inventory)
    assert put(chooser, PLAIN, Capacity(inventory)) == "only"


def test_a_plan_places_by_it(inventory: Inventory) -> None:
    jobs = [
        Job(str(number), None, None, {}, ("true",), NEEDS[number % len(NEEDS)])
        for number in range(12)
    ]
    chooser = room_chooser([job.resources for job in jobs], inventory)
    made = plan(jobs, CLUSTER, choose=chooser)
    assert not made.refused
    capacity = Capacity(inventory)
    first = min(made.planned, key=lambda each: each.start_s).start_s
    for each in made.planned:
        if each.start_s == first:
            capacity.take(each.placements[0])  # raises if it does not fit
