"""What keys mean together: ids and defaults that depend on other keys, and what cannot work side by side."""

from __future__ import annotations

from collections.abc import Sequence, Set
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from engine.contract import datasets
from engine.contract.profile import schema
from engine.contract.profile.catalogue import (
    CHECKPOINT,
    DATA_FACTS,
    DEFENCES,
    L2,
    NO_WEIGHTS,
    TRANSFERABLE,
    DataFacts,
    is_foreign,
    norms,
    plain,
    smallest_image,
)
from engine.contract.profile.presets import AS_PUBLISHED
from engine.contract.profile.schema import (
    FGSM_STEP,
    Adversary,
    Evaluate,
    Game,
    Inoculate,
    Profile,
    Stage,
    Threat,
    Train,
)


def stage_ids(stages: Any) -> list[str]:
    """Ids of raw stage tables: their own, or the kind, numbered from its second use."""
    ids: list[str] = []
    taken: set[str] = set()
    for stage in stages if isinstance(stages, list) else []:
        own = stage.get("id") if isinstance(stage, dict) else None
        kind = stage.get("kind") if isinstance(stage, dict) else None
        ids.append(str(own) if own is not None else _free_id(str(kind), taken))
        taken.add(ids[-1])
    return ids


def _free_id(kind: str, taken: Set[str]) -> str:
    return kind if kind not in taken else next(f"{kind}-{n}" for n in count(2) if f"{kind}-{n}" not in taken)


class _Place(NamedTuple):
    """Where a stage stands in its profile, at a key path: it may refer to the stages before it."""

    profile: Profile
    path: str
    earlier: Sequence[Stage]

    def latest(self, kind: type[Stage]) -> str | None:
        """The last stage of a kind before this one."""
        return next((stage.id for stage in reversed(self.earlier) if isinstance(stage, kind)), None)

    def checkpoint(self) -> str | None:
        """The network of [model] checkpoint, if there is one."""
        return CHECKPOINT if self.profile.model.checkpoint else None

    def refer(self, key: str, name: str | None, kinds: tuple[type[Stage], ...], what: str) -> list[str]:
        """What is wrong with `key`, which is to name an earlier stage of these kinds, one that does `what`."""
        allowed = [str(stage.id) for stage in self.earlier if isinstance(stage, kinds)]
        if name in allowed:
            return []
        path = f"{self.path}.{key}"
        if allowed:
            return [f'{path}: found "{name}"; allowed: an earlier stage that {what}: {", ".join(allowed)}']
        words = " or ".join(kind_name(kind) for kind in kinds)
        found = f'found "{name}"; ' if name else ""
        return [f"{path}: {found}no earlier stage {what}; add a [[stage]] of kind {words} before this one"]

    def refer_network(self, key: str, name: str | None) -> list[str]:
        """`refer` for a stage that trains a network, or the network of [model] checkpoint."""
        if name == CHECKPOINT and self.profile.model.checkpoint:
            return []
        return self.refer(key, name, (Train, Inoculate), "trains a network")


def resolve(profile: Profile) -> list[str]:
    """Fill, in place, the defaults that depend on other keys; the result tells what cannot work together."""
    problems = _resolve_ids(profile)
    for key in ("checkpoint", "hypothesis"):
        given = getattr(profile.model, key)
        if given not in (None, NO_WEIGHTS):  # the engine works in the folder of the run
            setattr(profile.model, key, str(Path(given).expanduser().absolute()))
    problems += _check_devices(profile)
    problems += _check_flip(profile)
    problems += datasets.complete(profile.data) or _resolve_threat(profile)
    for i, stage in enumerate(profile.stage):
        problems += _resolve_stage(stage, _Place(profile, f"stage.{i}", profile.stage[:i]))
    return problems


def _resolve_ids(profile: Profile) -> list[str]:
    problems = []
    ids = stage_ids([{"id": stage.id, "kind": kind_of(stage)} for stage in profile.stage])
    for i, (stage, stage_id) in enumerate(zip(profile.stage, ids, strict=True)):
        if stage_id == CHECKPOINT:
            problems.append(f'stage.{i}.id: "{CHECKPOINT}" is the network of [model] checkpoint; take another id')
        if stage_id in ids[:i]:
            problems.append(f'stage.{i}.id: "{stage_id}" is taken by stage {ids.index(stage_id)}; ids must differ')
        stage.id = stage_id
    return problems


def _resolve_stage(stage: Stage, place: _Place) -> list[str]:
    if isinstance(stage, Train):
        return _resolve_train(stage, place)
    if isinstance(stage, Game):
        return _resolve_game(stage, place)
    if isinstance(stage, Inoculate):
        return _resolve_inoculation(stage, place)
    return _resolve_evaluation(stage, place)


def _check_devices(profile: Profile) -> list[str]:
    found, places = f'compute.devices: found "{profile.compute.devices}"', profile.compute.places
    problems = []
    if places[0] != "cpu" and len(set(places)) < len(places):
        problems.append(f"{found}; allowed: each GPU once")
    sizes = [(s.batch_size, f"stage.{i}") for i, s in enumerate(profile.stage) if not isinstance(s, Evaluate)]
    if sizes and len(places) > min(sizes)[0]:
        least, stage = min(sizes)
        problems.append(
            f"{found}; allowed: at most {stage}.batch_size = {least} processes, each with an image of the batch"
        )
    return problems


def _check_flip(profile: Profile) -> list[str]:
    """Digits that would be mirrored; the paper's code does that to SVHN, and its presets follow it."""
    data = profile.data
    if not data.flip or data.name not in DATA_FACTS or DATA_FACTS[data.name].flip:
        return []
    if data.name == "svhn" and profile.preset in AS_PUBLISHED:
        return []
    return [f"data.flip: found true; allowed for {data.name}: false, a mirrored digit is none"]


def _resolve_threat(profile: Profile) -> list[str]:
    facts = profile.data.facts
    return _check_radii(profile, facts) + _check_sides(profile, facts)


def _check_radii(profile: Profile, facts: DataFacts) -> list[str]:
    """Balls that are wider than the space of images."""
    problems, threat = [], profile.threat
    radii = [("threat.eps", threat.norm, threat.eps)]
    if threat.eps_l2 is not None:
        radii.append(("threat.eps_l2", "l2", threat.eps_l2))
    for i, stage in enumerate(profile.stage):
        if isinstance(stage, Evaluate):
            for j, eps in enumerate(stage.eps or ()):
                radii.append((f"stage.{i}.eps.{j}", threat.norm, eps))
    widest = (facts.channels * facts.size**2) ** 0.5
    for key, norm, eps in radii:
        most = 1.0 if norm == "linf" else widest
        if eps > most:
            problems.append(f"{key}: found {eps}; allowed: at most {most:g} for {norm}, images lie in [0,1]")
    return problems


def _check_sides(profile: Profile, facts: DataFacts) -> list[str]:
    """Images that are too small for the network, at any time of training."""
    problems: list[str] = []
    needed = smallest_image(profile.model.name)
    for i, stage in enumerate(profile.stage):
        if isinstance(stage, Train):
            problems += _check_resolution(stage, f"stage.{i}", needed, facts.size)
    if facts.size < needed:
        problems.append(
            f"model.name: {profile.model.name} needs images of at least {needed}x{needed}; "
            f"{profile.data.name} has {facts.size}x{facts.size}; `small` fits"
        )
    return problems


def _check_resolution(stage: Train, path: str, least: int, most: int) -> list[str]:
    if stage.resolution is None:
        return [f"{path}.ramp: needs a resolution that rises"] if stage.ramp else []
    problems = []
    if not (least <= min(stage.resolution) and max(stage.resolution) <= most):
        found = list(stage.resolution)
        problems.append(f"{path}.resolution: found {found}; allowed for this network and data: {least} to {most}")
    stage.ramp = stage.ramp or (18.0, 25.0)
    if stage.ramp[0] > stage.ramp[1]:
        problems.append(f"{path}.ramp: found {list(stage.ramp)}; allowed: an end that is not before the beginning")
    return problems


def _resolve_adversary(adversary: Adversary) -> None:
    if adversary.step_size is None:
        adversary.step_size = FGSM_STEP if adversary.attack == "fgsm" else 2.3 / adversary.steps


def _resolve_train(stage: Train, place: _Place) -> list[str]:
    problems = _resolve_training(stage, place.path, rise=1 / 6) + _resolve_helper(stage, place)
    if stage.start is not None:
        problems += place.refer_network("start", stage.start)
    return problems


def _resolve_game(stage: Game, place: _Place) -> list[str]:
    problems = []
    _resolve_adversary(stage.adversary)
    if stage.views > stage.reuse_epochs:
        problems.append(
            f"{place.path}.views: found {stage.views}; allowed: at most reuse_epochs = {stage.reuse_epochs}, "
            "as every epoch uses one view"
        )
    stage.base = stage.base or place.latest(Train) or place.checkpoint()
    problems += place.refer_network("base", stage.base)
    model = place.profile.model.name
    if is_foreign(model):
        problems.append(
            f"model.name: {model} is not cut into features and head, which the game of stage {len(place.earlier)} "
            "needs; it needs one of our networks"
        )
    return problems


def _resolve_training(stage: Train | Inoculate, path: str, rise: float) -> list[str]:
    defence = DEFENCES[stage.defence]
    if defence.adversary is not None:
        stage.adversary.attack = defence.adversary
    _resolve_adversary(stage.adversary)
    if stage.beta is None:
        stage.beta = defence.beta  # open where there is no such term, so that another defence has its own
    if stage.warmup_epochs is None:
        stage.warmup_epochs = stage.epochs * rise
    if stage.warmup_epochs > stage.epochs:
        return [f"{path}.warmup_epochs: found {stage.warmup_epochs}; allowed: at most epochs = {stage.epochs}"]
    return []


def _resolve_helper(stage: Train | Inoculate, place: _Place) -> list[str]:
    """The standard network that a defence with a helper example asks."""
    if not DEFENCES[stage.defence].helper:
        return []
    standard = [other.id for other in place.earlier if isinstance(other, Train) and not DEFENCES[other.defence].attacks]
    stage.helper = stage.helper or (standard[-1] if standard else None)
    if stage.helper is None:
        unattacked = " or ".join(name for name, defence in DEFENCES.items() if not defence.attacks)
        needed = f"a stage of kind train with defence {unattacked} before it, or its id here"
        return [f"{place.path}.helper: {stage.defence} needs {needed}"]
    return place.refer_network("helper", stage.helper)


def _resolve_inoculation(stage: Inoculate, place: _Place) -> list[str]:
    problems = _resolve_training(stage, place.path, rise=1 / 2) + _resolve_helper(stage, place)
    problems += _resolve_hypothesis(stage, place)
    problems += _resolve_gamma(stage, place)
    return problems


def _resolve_hypothesis(stage: Inoculate, place: _Place) -> list[str]:
    """Whose h an inoculation uses, and the network that it starts from."""
    from_file = place.profile.model.hypothesis is not None
    stage.game = stage.game or place.latest(Game) or (CHECKPOINT if from_file else None)
    if stage.game == CHECKPOINT and from_file:
        stage.start = stage.start or place.checkpoint() or place.latest(Train)
        return place.refer_network("start", stage.start)
    problems = place.refer("game", stage.game, (Game,), "plays the game")
    if stage.start is not None:
        return problems + place.refer_network("start", stage.start)
    for game in place.earlier:
        if isinstance(game, Game) and game.id == stage.game:
            stage.start = game.base  # which has been checked there
            break
    return problems


def _resolve_gamma(stage: Inoculate, place: _Place) -> list[str]:
    data, threat = place.profile.data, place.profile.threat
    if stage.gamma is None and threat.norm == "linf" and data.name != "imagenet":
        stage.gamma = threat.eps / 4
    if stage.gamma is None:
        unknown = "threat.norm is l2" if threat.norm == "l2" else "nothing is known that suits imagenet"
        return [f"{place.path}.gamma: missing; needed: the Linf radius of the inversion, as {unknown}"]
    if stage.gamma > 1:
        return [f"{place.path}.gamma: found {stage.gamma}; allowed: at most 1, images lie in [0,1]"]
    return []


def _resolve_evaluation(stage: Evaluate, place: _Place) -> list[str]:
    checkpoint = place.checkpoint()
    networks = [checkpoint] if checkpoint else []
    networks += [str(other.id) for other in place.earlier if isinstance(other, Train | Inoculate)]
    if stage.models is None and not networks:
        return [f"{place.path}.models: no earlier stage trains a network; add a [[stage]] of kind train before it"]
    stage.models = stage.models or networks
    problems: list[str] = []
    for i, model in enumerate(stage.models):
        problems += place.refer_network(f"models.{i}", model)
    if stage.source is not None:
        problems += place.refer_network("source", stage.source)
    for key, values in (("models", stage.models), ("attacks", stage.attacks)):
        if len(set(values)) < len(values):
            problems.append(f"{place.path}.{key}: a name occurs twice; each may occur once")
    problems += _resolve_attacks(stage, place.path, place.profile)
    return problems


def _resolve_attacks(stage: Evaluate, path: str, profile: Profile) -> list[str]:
    problems = _check_norms(stage, path, profile.threat)
    if stage.eps and len({f"{eps:.4g}" for eps in stage.eps}) < len(stage.eps):
        problems.append(f"{path}.eps: a radius occurs twice (to four digits); each may occur once")
    barred = [attack for attack in stage.attacks if plain(attack) not in TRANSFERABLE]
    if stage.source is not None and barred:
        allowed = ", ".join(TRANSFERABLE)
        problems.append(f"{path}.attacks: with a source allowed are {allowed}, not {', '.join(barred)}")
    return problems


def _check_norms(stage: Evaluate, path: str, threat: Threat) -> list[str]:
    in_l2 = [attack for attack in stage.attacks if attack.endswith(L2)]
    problems: list[str] = []
    if in_l2 and threat.norm == "linf" and threat.eps_l2 is None:
        problems.append(f"threat.eps_l2: missing; needed: the L2 radius of {', '.join(in_l2)}")
    another = "an Linf" if threat.norm == "l2" else "an L2"
    for attack in stage.attacks:
        if attack not in in_l2 and threat.norm not in norms(attack):
            problems.append(f"{path}.attacks: {attack} is {another} attack, and threat.norm is {threat.norm}")
    return problems


def kind_name(kind: type[Stage]) -> str:
    """The word for a kind of stage in a profile: train, game, inoculate, evaluate."""
    return next(name for name, known in schema.STAGES.items() if known is kind)


def kind_of(stage: Stage) -> str:
    """The kind of a stage, as its profile writes it."""
    return kind_name(type(stage))
