"""What keys mean together: ids and defaults that depend on other keys, and what cannot work side by side."""

from __future__ import annotations

from collections.abc import Sequence, Set
from itertools import count
from pathlib import Path
from typing import Any

from engine.contract import datasets
from engine.contract.profile import schema
from engine.contract.profile.catalogue import BETAS, CHECKPOINT, NO_WEIGHTS, SMALLEST_IMAGE, TRANSFERABLE, is_foreign
from engine.contract.profile.schema import FGSM_STEP, Adversary, Evaluate, Game, Inoculate, Profile, Stage, Train


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


def resolve(profile: Profile) -> list[str]:
    """Fill, in place, the defaults that depend on other keys; the result tells what cannot work together."""
    problems: list[str] = []
    ids = stage_ids([{"id": stage.id, "kind": kind_of(stage)} for stage in profile.stage])
    for i, (stage, stage_id) in enumerate(zip(profile.stage, ids, strict=True)):
        if stage_id == CHECKPOINT:
            problems.append(f'stage.{i}.id: "{CHECKPOINT}" is the network of [model] checkpoint; take another id')
        if stage_id in ids[:i]:
            problems.append(f'stage.{i}.id: "{stage_id}" is taken by stage {ids.index(stage_id)}; ids must differ')
        stage.id = stage_id
    for key in ("checkpoint", "hypothesis"):
        given = getattr(profile.model, key)
        if given not in (None, NO_WEIGHTS):  # the engine works in the folder of the run
            setattr(profile.model, key, str(Path(given).expanduser().absolute()))
    problems += _check_devices(profile)
    unknown = datasets.complete(profile.data)
    problems += unknown or _resolve_threat(profile)
    for i, stage in enumerate(profile.stage):
        earlier = profile.stage[:i]
        if isinstance(stage, Train):
            problems += _resolve_training(stage, f"stage.{i}", rise=1 / 6)
            problems += _resolve_helper(stage, f"stage.{i}", earlier, profile)
            if stage.start is not None:
                problems += _refer_network(f"stage.{i}.start", stage.start, earlier, profile)
        elif isinstance(stage, Game):
            _resolve_adversary(stage.adversary)
            if stage.views > stage.reuse_epochs:
                problems.append(
                    f"stage.{i}.views: found {stage.views}; allowed: at most reuse_epochs = {stage.reuse_epochs}, "
                    "as every epoch uses one view"
                )
            stage.base = stage.base or _latest(earlier, Train) or (CHECKPOINT if profile.model.checkpoint else None)
            problems += _refer_network(f"stage.{i}.base", stage.base, earlier, profile)
            if is_foreign(profile.model.name):
                problems.append(
                    f"model.name: {profile.model.name} is not cut into features and head, which the game of stage {i} "
                    "needs; it needs one of our networks"
                )
        elif isinstance(stage, Inoculate):
            problems += _resolve_training(stage, f"stage.{i}", rise=1 / 2)
            problems += _resolve_helper(stage, f"stage.{i}", earlier, profile)
            problems += _resolve_inoculation(stage, f"stage.{i}", earlier, profile)
        else:
            problems += _resolve_evaluation(stage, f"stage.{i}", earlier, profile)
    return problems


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


def _resolve_threat(profile: Profile) -> list[str]:
    problems: list[str] = []
    facts, threat = profile.data.facts, profile.threat
    radii = [("threat.eps", threat.norm, threat.eps)]
    radii += [("threat.eps_l2", "l2", threat.eps_l2)] if threat.eps_l2 is not None else []
    for i, stage in enumerate(profile.stage):
        if isinstance(stage, Evaluate):
            radii += [(f"stage.{i}.eps.{j}", threat.norm, eps) for j, eps in enumerate(stage.eps or ())]
    widest = (facts.channels * facts.size**2) ** 0.5
    for key, norm, eps in radii:
        most = 1.0 if norm == "linf" else widest
        if eps > most:
            problems.append(f"{key}: found {eps}; allowed: at most {most:g} for {norm}, images lie in [0,1]")
    needed = SMALLEST_IMAGE.get(profile.model.name, 8)
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


def _resolve_training(stage: Train | Inoculate, path: str, rise: float) -> list[str]:
    if stage.defence == "fast":
        stage.adversary.attack = "fgsm"
    _resolve_adversary(stage.adversary)
    if stage.beta is None:
        stage.beta = BETAS.get(stage.defence)  # open where there is no such term, so that another defence has its own
    if stage.warmup_epochs is None:
        stage.warmup_epochs = stage.epochs * rise
    if stage.warmup_epochs > stage.epochs:
        return [f"{path}.warmup_epochs: found {stage.warmup_epochs}; allowed: at most epochs = {stage.epochs}"]
    return []


def _resolve_helper(stage: Train | Inoculate, path: str, earlier: Sequence[Stage], profile: Profile) -> list[str]:
    """The standard network that `help` asks."""
    if stage.defence != "help":
        return []
    standard = [other.id for other in earlier if isinstance(other, Train) and other.defence == "standard"]
    stage.helper = stage.helper or (standard[-1] if standard else None)
    if stage.helper is None:
        return [f"{path}.helper: help needs a stage of kind train with defence standard before it, or its id here"]
    return _refer_network(f"{path}.helper", stage.helper, earlier, profile)


def _resolve_inoculation(stage: Inoculate, path: str, earlier: Sequence[Stage], profile: Profile) -> list[str]:
    problems: list[str] = []
    given = profile.model.hypothesis is not None
    stage.game = stage.game or _latest(earlier, Game) or (CHECKPOINT if given else None)
    if stage.game == CHECKPOINT and given:
        stage.start = stage.start or (CHECKPOINT if profile.model.checkpoint else _latest(earlier, Train))
        problems += _refer_network(f"{path}.start", stage.start, earlier, profile)
    else:
        problems += _refer(f"{path}.game", stage.game, earlier, (Game,), "plays the game")
        if stage.start is not None:
            problems += _refer_network(f"{path}.start", stage.start, earlier, profile)
        else:  # the base of the game has been checked there
            stage.start = next((g.base for g in earlier if isinstance(g, Game) and g.id == stage.game), None)
    unknown = "threat.norm is l2" if profile.threat.norm == "l2" else "nothing is known that suits imagenet"
    if stage.gamma is None and profile.threat.norm == "linf" and profile.data.name != "imagenet":
        stage.gamma = profile.threat.eps / 4
    if stage.gamma is None:
        problems.append(f"{path}.gamma: missing; needed: the Linf radius of the inversion, as {unknown}")
    elif stage.gamma > 1:
        problems.append(f"{path}.gamma: found {stage.gamma}; allowed: at most 1, images lie in [0,1]")
    return problems


def _resolve_evaluation(stage: Evaluate, path: str, earlier: Sequence[Stage], profile: Profile) -> list[str]:
    trained = [CHECKPOINT] if profile.model.checkpoint else []
    trained += [str(other.id) for other in earlier if isinstance(other, Train | Inoculate)]
    if stage.models is None and not trained:
        return [f"{path}.models: no earlier stage trains a network; add a [[stage]] of kind train before it"]
    stage.models = stage.models or trained
    problems: list[str] = []
    for i, model in enumerate(stage.models):
        problems += _refer_network(f"{path}.models.{i}", model, earlier, profile)
    if stage.source is not None:
        problems += _refer_network(f"{path}.source", stage.source, earlier, profile)
    for key, values in (("models", stage.models), ("attacks", stage.attacks)):
        if len(set(values)) < len(values):
            problems.append(f"{path}.{key}: a name occurs twice; each may occur once")
    problems += _resolve_attacks(stage, path, profile)
    return problems


def _resolve_attacks(stage: Evaluate, path: str, profile: Profile) -> list[str]:
    problems: list[str] = []
    in_l2 = [attack for attack in stage.attacks if attack.endswith("-l2")]
    if in_l2 and profile.threat.norm == "linf" and profile.threat.eps_l2 is None:
        problems.append(f"threat.eps_l2: missing; needed: the L2 radius of {', '.join(in_l2)}")
    if "cw" in stage.attacks and profile.threat.norm != "linf":
        problems.append(f"{path}.attacks: cw is an Linf attack, and threat.norm is {profile.threat.norm}")
    if stage.eps and len({f"{eps:.4g}" for eps in stage.eps}) < len(stage.eps):
        problems.append(f"{path}.eps: a radius occurs twice (to four digits); each may occur once")
    if stage.source is not None:
        barred = [attack for attack in stage.attacks if attack.removesuffix("-l2") not in TRANSFERABLE]
        if barred:
            allowed = ", ".join(TRANSFERABLE)
            problems.append(f"{path}.attacks: with a source allowed are {allowed}, not {', '.join(barred)}")
    return problems


def _latest(earlier: Sequence[Stage], kind: type[Stage]) -> str | None:
    return next((stage.id for stage in reversed(earlier) if isinstance(stage, kind)), None)


def _refer(
    path: str, name: str | None, earlier: Sequence[Stage], kinds: tuple[type[Stage], ...], what: str
) -> list[str]:
    allowed = [str(stage.id) for stage in earlier if isinstance(stage, kinds)]
    if name in allowed:
        return []
    if not allowed:
        words = " or ".join(kind_name(kind) for kind in kinds)
        found = f'found "{name}"; ' if name else ""
        return [f"{path}: {found}no earlier stage {what}; add a [[stage]] of kind {words} before this one"]
    return [f'{path}: found "{name}"; allowed: an earlier stage that {what}: {", ".join(allowed)}']


def _refer_network(path: str, name: str | None, earlier: Sequence[Stage], profile: Profile) -> list[str]:
    """A stage that trains a network, or the network of [model] checkpoint."""
    if name == CHECKPOINT and profile.model.checkpoint:
        return []
    return _refer(path, name, earlier, (Train, Inoculate), "trains a network")


def kind_name(kind: type[Stage]) -> str:
    """The word for a kind of stage in a profile: train, game, inoculate, evaluate."""
    return next(name for name, known in schema.STAGES.items() if known is kind)


def kind_of(stage: Stage) -> str:
    """The kind of a stage, as its profile writes it."""
    return kind_name(type(stage))
