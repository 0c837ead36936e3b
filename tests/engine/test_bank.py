"""The feature bank and the diagnosis of the game: same bits wherever features lie, closed forms, signs of failure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from engine import distributed, process
from engine.checkpoints import own as checkpoints
from engine.contract.errors import DiskError, ProfileError, RunFailed
from engine.contract.plan import plan
from engine.contract.profile import files as profiles
from engine.contract.profile.schema import BankPlace
from engine.contract.run.records import ErrorNote, RecordReader, Scalars, WarningNote
from engine.contract.run.rundir import RunDir
from engine.defences.train import Training
from engine.device import Compute
from engine.game import bank, saddle
from engine.game.bank import FeatureBank, bank_bytes
from engine.game.game import GameRun
from engine.game.moments import regulariser
from engine.models.treatment import build_treatment
from engine.stage import Context, Step

INDEX = torch.tensor([2, 3, 5, 8, 9])


def made(index: Tensor) -> tuple[Tensor, Tensor]:
    """Features (N,3,2,2) that tell the example they belong to."""
    F_nat = index.float()[:, None, None, None].expand(-1, 3, 2, 2) + torch.arange(4.0).view(1, 1, 2, 2)
    return F_nat, -F_nat


@pytest.mark.parametrize("place", ["device", "host", "disk", "auto"])
def test_features_are_made_once_and_come_back_unchanged(place: BankPlace) -> None:
    held, asked = FeatureBank(INDEX, 2, place), []

    def features(view: int, *index: int) -> tuple[Tensor, Tensor]:
        wanted = torch.tensor(index)
        return held.features(view, wanted, lambda: asked.append((view, *index)) or made(wanted))  # type: ignore[func-returns-value]

    features(0, 9, 2)
    features(0, 3, 5, 8)
    for index in ((2, 3), (8, 5, 9)):
        F_nat, F_adv = features(0, *index)
        assert torch.equal(F_nat, made(torch.tensor(index))[0])
        assert torch.equal(F_adv, made(torch.tensor(index))[1])
    assert asked == [(0, 9, 2), (0, 3, 5, 8)]
    features(1, 2)
    features(1, 2, 3)  # one is missing
    assert asked[2:] == [(1, 2), (1, 2, 3)]
    assert held.nbytes == bank_bytes(5, 2, (3, 2, 2)) == 2 * 5 * 2 * 12 * 4
    assert held.place == ("device" if place == "auto" else place)
    held.forget()
    features(0, 2)
    assert asked[4:] == [(0, 2)]


def test_a_bank_without_room_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank, "bank_bytes", lambda *_: 1 << 60)
    with pytest.raises(DiskError, match=r"needs 1152921504\.6 GB, and .* free"):
        FeatureBank(INDEX, 1, "disk").features(0, INDEX, lambda: made(INDEX))

    def full(*_: object, **__: object) -> Tensor:
        raise RuntimeError("not enough memory")

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(RunFailed, match="which the host does not have") as failure:
        FeatureBank(INDEX, 1, "host").features(0, INDEX, lambda: made(INDEX))
    assert "reuse_epochs = 1" in failure.value.hint


@pytest.fixture
def games(
    quick_run: Callable[..., RunDir], context_of: Callable[[RunDir], Context]
) -> Callable[..., Callable[[], GameRun]]:
    """Games on one small network, with overrides of their keys; each call of the result is a new one of the same."""

    def make(**keys: object) -> Callable[[], GameRun]:
        overrides = [
            f'stage.game.{key}="{value}"' if isinstance(value, str) else f"stage.game.{key}={value}"
            for key, value in keys.items()
        ]
        context = context_of(quick_run("stage.train.epochs=1", *overrides))
        if not context.weights_file("train").exists():
            for _ in Training(context, context.profile.stage[0]).run():  # type: ignore[arg-type]
                pass
        return lambda: GameRun(context, context.profile.stage[1])  # type: ignore[arg-type]

    return make


def played(game: GameRun, until: int | None = None) -> list[Scalars]:
    """The curves of a game that is consumed to its end, or to a step."""
    found = []
    for event in game.run():
        if isinstance(event, Scalars):
            event.values.pop("images_per_second", None)
            found.append(event)
        if isinstance(event, Step) and event.done == until:
            game.save()
            break
    return found


def test_a_game_stopped_within_a_draw_goes_on_to_the_same_bits(games: Callable[..., Callable[[], GameRun]]) -> None:
    """The bank is not kept: what it held is made anew, among other neighbours."""
    mixed = {"adversary.attack": "mixed", "adversary.pgd_share": 0.5}
    game = games(epochs=4, reuse_epochs=3, views=2, bank="host", regret_steps=1, **mixed)
    whole = game()
    curves = played(whole)
    for stop in (8, 13):  # in the second view, in the second use of the first; 5 steps an epoch
        played(game(), until=stop)
        again = game()
        assert again.resume() == []
        assert again.done == stop
        rest = played(again)
        for mine, theirs in zip((again.h, again.g), (whole.h, whole.g), strict=True):
            assert all(map(torch.equal, mine.state_dict().values(), theirs.state_dict().values()))
        assert [curve.values for curve in rest] == [curve.values for curve in curves if curve.step > stop]
        again.resume_file.unlink()


def test_a_rank_keeps_the_features_of_its_own_images(
    games: Callable[..., Callable[[], GameRun]], monkeypatch: pytest.MonkeyPatch
) -> None:
    make = games(reuse_epochs=3)
    monkeypatch.setattr(distributed, "world", lambda: 3)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    monkeypatch.setattr("engine.game.game.DIAGNOSED", 4)
    game = make()
    data = game.context.data
    assert game.bank is not None
    rows = game.share(torch.randperm(len(data.train)))
    assert torch.equal(game.bank.index, data.train.index[rows.sort().values])
    diagnosed = set(data.validation.subset(4).index.tolist())
    assert set(data.validation.share().index.tolist()) | diagnosed == set(game.held_out.index.tolist())
    assert torch.equal(game.held_out.index, game.held_out.index.sort().values)


def test_one_draw_serves_as_many_epochs_as_it_should(games: Callable[..., Callable[[], GameRun]]) -> None:
    game = games(epochs=7, reuse_epochs=3, views=2, regret_steps=0)()
    assert [game.drawing(epoch) for epoch in range(7)] == [0, 1, 0, 3, 4, 3, 6]
    attacked: list[int] = []
    original = game.features
    game.features = lambda batch, epoch, share=0.0: attacked.append(epoch) or original(batch, epoch, share)  # type: ignore[assignment, method-assign, func-returns-value]
    played(game)
    steps = game.steps_per_epoch
    assert [attacked.count(epoch) for epoch in (0, 1, 3, 4, 6)] == [steps] * 5
    assert attacked.count(-1) == len(attacked) - 5 * steps == 2, "the held-out images once, and the test images"


def test_the_plan_knows_that_reuse_is_cheaper_and_the_profile_that_views_need_epochs() -> None:
    def cost(**keys: object) -> float:
        stages = [{"kind": "train"}, {"kind": "game", **keys}]
        return plan(profiles.from_tables({"name": "x", "stage": stages}))[1].cost

    assert cost(reuse_epochs=10) < cost(reuse_epochs=10, views=2) < cost(reuse_epochs=1)
    with pytest.raises(ProfileError, match=r"stage\.1\.views: found 3; allowed: at most reuse_epochs = 2"):
        cost(reuse_epochs=2, views=3)


class Scaled(nn.Module):
    """w to s * w."""

    def __init__(self, s: float) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.tensor(s))

    def forward(self, w: Tensor) -> Tensor:
        return self.s * w


class Pooled(nn.Module):
    """Logits are the channel means."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mean((2, 3))


def play(g: nn.Module, lambda_: float, seen: saddle.HeldOut, steps: int = 200) -> float:
    optimizer = torch.optim.AdamW(g.parameters(), lr=0.02, weight_decay=0.0)
    on_cpu = Compute(torch.device("cpu"))
    h, scaler = Scaled(0.5), on_cpu.scaler()
    return saddle.regret(saddle.Play(Pooled(), h, g), saddle.Practice(optimizer, scaler, steps), seen, on_cpu, lambda_)


def test_regret_is_nothing_at_the_best_answer_and_the_whole_gap_away_from_it() -> None:
    """With a large lambda the best g is the identity, and g(Z) = s*Z lies lambda * (s-1)^2 * mean(Z^2) below it."""
    torch.manual_seed(0)
    Z = torch.randn(40, 3, 2, 2)
    seen = saddle.HeldOut(torch.zeros(40, 3, 2, 2), torch.cat([Z[:20], Z[:20]]), torch.arange(20).repeat(2) % 3)
    assert play(Scaled(1.0), 1e4, seen) == pytest.approx(0.0, abs=0.01)
    far = Scaled(0.0)
    gap = 1e4 * seen.halves()[1].Z.pow(2).mean().item()
    assert play(far, 1e4, seen) == pytest.approx(gap, rel=0.01)
    assert far.s.item() == 0.0, "the player itself stays"
    assert play(Scaled(0.0), 1.0, seen, steps=0) == 0.0


def test_regret_is_much_the_same_in_every_number_format() -> None:
    found = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        torch.manual_seed(0)
        head = nn.Sequential(Pooled(), nn.Linear(16, 10)).requires_grad_(False)
        nn.init.normal_(head[1].weight)
        h, g = (build_treatment((16, 5, 5), seed=seed) for seed in (1, 2))
        optimizer = torch.optim.AdamW(g.parameters(), lr=1e-3, fused=True)
        seen = saddle.HeldOut(*torch.randn(2, 128, 16, 5, 5), torch.randint(0, 10, (128,)))
        compute = Compute(torch.device("cpu"), dtype)
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0, enabled=dtype == torch.float16)  # as after some steps
        practice = saddle.Practice(optimizer, scaler, steps=5)
        found[dtype] = saddle.regret(saddle.Play(head, h, g), practice, seen, compute, lambda_=1.0)
    assert found[torch.bfloat16] == pytest.approx(found[torch.float32], rel=0.05)
    assert found[torch.float16] == pytest.approx(found[torch.float32], rel=0.05)


def shape(h: nn.Module, g: nn.Module, head: nn.Module | None = None) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    F_nat, Z = (torch.randn(16, 3, 2, 2, generator=generator) for _ in range(2))
    return saddle.shape_of_play(saddle.Play(head or Pooled(), h, g), saddle.HeldOut(F_nat, Z, torch.zeros(16)))


SOUND = {"val_treatment_distance": 1.0, "val_counterfactual_kl": 0.3, "val_hypothesis_spread": 0.8, "val_psi": 0.2}


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("val_treatment_distance", 1e-4, "identity"),
        ("val_counterfactual_kl", 1e-4, "identity"),
        ("val_hypothesis_spread", 1e-4, "constant"),
        ("val_psi", 1e-4, "psi"),
        ("val_psi", float("nan"), "diverged"),
        ("val_regret", float("inf"), "diverged"),
    ],
)
def test_each_sign_of_a_degenerate_game_is_told_by_its_name(key: str, value: float, kind: str) -> None:
    assert saddle.alarms(SOUND) == {}
    assert list(saddle.alarms({**SOUND, key: value})) == [kind]


def test_the_shape_of_play_in_closed_form() -> None:
    plain = shape(Scaled(1.0), Scaled(1.0))
    assert (plain["treatment_distance"], plain["counterfactual_kl"]) == (0.0, 0.0)
    assert shape(Scaled(1.0), Scaled(3.0))["treatment_distance"] == pytest.approx(2.0, rel=1e-5)
    assert shape(Scaled(1.0), Scaled(3.0))["counterfactual_kl"] > 0.05
    assert plain["hypothesis_spread"] > 0.5
    assert shape(Scaled(0.5), Scaled(1.0))["hypothesis_spread"] == pytest.approx(plain["hypothesis_spread"] / 2)


class Constant(nn.Module):
    """1, whatever the example."""

    def forward(self, w: Tensor) -> Tensor:
        return torch.ones_like(w)


@pytest.mark.parametrize("h", [Constant(), Scaled(1e-6)], ids=["constant", "vanishing"])
@pytest.mark.parametrize("head", [Pooled(), nn.Sequential(nn.ReLU(), Pooled())], ids=["linear", "relu"])
def test_an_h_that_gives_the_classifier_nothing_is_told(h: nn.Module, head: nn.Module) -> None:
    found = {f"val_{name}": value for name, value in shape(h, Scaled(3.0), head).items()}
    assert found["val_hypothesis_spread"] < 1e-5
    assert list(saddle.alarms({"val_psi": 1.0} | found)) == ["constant"]


def test_a_g_that_is_the_identity_as_far_as_it_can_be_is_told() -> None:
    """Its encoder ends in a mean, so that it cannot repeat Z; what the classifier answers to g(Z) tells it."""
    generator = torch.Generator().manual_seed(0)
    F_nat, noise = (torch.randn(600, 8, 2, 2, generator=generator) for _ in range(2))
    mean = torch.randn(600, 3, generator=generator) @ torch.randn(3, 8, generator=generator)
    seen = saddle.HeldOut(F_nat, mean[:, :, None, None] + noise, torch.zeros(600))
    practice, test = seen.halves()
    g = build_treatment((8, 2, 2), seed=0)

    def found() -> dict[str, float]:
        shape = saddle.shape_of_play(saddle.Play(Pooled(), Scaled(1.0), g), test)
        return {f"val_{name}": value for name, value in shape.items()}

    assert "identity" not in saddle.alarms({"val_psi": 1.0} | found())
    optimizer = torch.optim.AdamW(g.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-2, total_steps=200)
    for _ in range(200):  # lambda = infinity
        optimizer.zero_grad()
        regulariser(g(practice.Z), practice.Z).mean().backward()
        optimizer.step()
        schedule.step()
    assert found()["val_treatment_distance"] > 0.3
    assert "identity" in saddle.alarms({"val_psi": 1.0} | found())


def test_a_degenerate_game_is_told_once(games: Callable[..., Callable[[], GameRun]]) -> None:
    game = games(epochs=2, **{"lambda": 1e-9})()
    game.g = Scaled(1.0)
    game.optimizer_g = torch.optim.AdamW(game.g.parameters(), lr=1e-12)
    warnings = [event.text for event in game.run() if hasattr(event, "text") and "identity" in event.text]
    assert len(warnings) == 1, "once, not after every epoch"
    saved, _ = checkpoints.load_resume(game.resume_file)
    assert saved is not None
    assert "identity" in saved["state"]["told"]


@pytest.mark.parametrize("images", [1, 2, 3, 4])
def test_a_game_with_few_held_out_images_tells_no_regret(
    images: int, quick_run: Callable[..., RunDir], context_of: Callable[[RunDir], Context]
) -> None:
    context = context_of(quick_run("stage.train.epochs=1", "stage.game.epochs=1", "data.validation=0.9"))
    few = replace(context.data, validation=context.data.validation.first(images), test=context.data.test.first(8))
    context = replace(context, data=few)
    for _ in Training(context, context.profile.stage[0]).run():  # type: ignore[arg-type]
        pass
    names = {name for curve in played(GameRun(context, context.profile.stage[1])) for name in curve.values}  # type: ignore[arg-type]
    assert ("val_regret" in names) == (images >= 4)
    assert "val_counterfactual_kl" in names


def test_a_game_that_diverged_is_told_and_nothing_goes_on_from_it(quick_run: Callable[..., RunDir]) -> None:
    run = quick_run("stage.train.epochs=1", "stage.game.epochs=1", "stage.game.lr=1e30", "data.validation=0.9")
    assert process.run(run) == 1
    records = list(RecordReader(run.records_file).read())
    notes = [record.text for record in records if isinstance(record, WarningNote) and record.stage == "game"]
    assert [text for text in notes if "diverged" in text] == notes
    assert len(notes) == 1
    (error,) = (record.text for record in records if isinstance(record, ErrorNote))
    assert error.startswith("h of game.safetensors has weights that are not finite numbers, such as encoder.0")
