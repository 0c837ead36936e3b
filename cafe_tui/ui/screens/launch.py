"""A new run: pick a profile, change its keys, see what the loader says of it, start."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import Screen
from textual.widgets import OptionList, Static
from textual.worker import get_current_worker

from cafe_tui import format as fmt
from cafe_tui.launch import costs, local, queue
from cafe_tui.profiles import forms
from cafe_tui.profiles.forms import Choice, Field, Outcome
from cafe_tui.ui.messages import RunOpened
from cafe_tui.ui.screens.opening import Selection
from cafe_tui.ui.widgets.confirm import Confirm
from cafe_tui.ui.widgets.key_bar import KeyBar
from cafe_tui.ui.widgets.lines import Line, Lines, wrap
from cafe_tui.ui.widgets.profile_form import Editor, ProfileForm
from cafe_tui.ui.widgets.prompt import Prompt
from cafe_tui.ui.widgets.scrolling import ScrollPane
from cafe_tui.ui.widgets.sweep_plan import SweepPlan
from engine.contract.errors import CafeError
from engine.contract.profile.files import Loaded
from engine.contract.profile.sweeps import Sweep

WIDTHS: Final = [(0, "-narrow"), (100, "-wide")]
DEVICE: Final = "compute.device"


@dataclass
class ChoicesRead(Message, bubble=False):
    """The profiles there are, or why they cannot be read."""

    choices: Sequence[Choice]
    problem: str = ""


@dataclass
class DevicesSeen(Message, bubble=False):
    """The devices of this host, each with how free it is."""

    devices: Mapping[str, str]


@dataclass
class Checked(Message, bubble=False):
    """What the loader says of the form as it was at edit number `edition`."""

    edition: int
    outcome: Outcome


@dataclass
class Offered(Message, bubble=False):
    """What starting a sweep would do, and what is known of its cost so far."""

    edition: int
    offer: costs.Offer
    lines: Sequence[str]


@dataclass
class Tried(Message, bubble=False):
    """Starting is over: the run's id, what to say of the runs of a sweep, or why there is none."""

    run_id: str = ""
    queued: str = ""
    problem: str = ""


class Verdict(Lines):
    """Every problem of the form, or what it changes."""

    _outcome = Outcome(None)
    _failure = ""

    def show(self, outcome: Outcome, failure: str = "") -> None:
        """Show an outcome and why the last start, if any, did not work."""
        self._outcome, self._failure = outcome, failure
        self.show_changes()

    def compose_lines(self, cells: int) -> list[Line]:
        """Wrapped sentences."""
        bad = [*self._failure.splitlines(), *self._outcome.problems]
        lines: list[Line] = [((part, "bad"),) for text in bad for part in wrap(fmt.printable(text), cells)]
        for key, old, new in self._outcome.changes:
            lines += [((part, "warn"),) for part in wrap(fmt.printable(f"{key}: {old} -> {new}"), cells)]
        return lines or [(("as in the profile" if self._outcome.loaded else "", "dim"),)]


def opened(selection: Selection) -> LaunchScreen:
    """A form for a run beside those of the list."""
    return LaunchScreen(selection.runs)


class LaunchScreen(Screen[None]):
    """Starts a run under `runs`. Nothing is written before `ctrl+s` or `w`."""

    HORIZONTAL_BREAKPOINTS = WIDTHS
    DEFAULT_CSS = """
    LaunchScreen {
        #title { height: 1; padding: 0 1; color: $text-muted; }
        #body { height: 1fr; }
        #profiles { width: 38; height: 1fr; border: none; background: transparent; padding: 0 1; }
        #right { display: none; width: 1fr; padding: 0 1; }
        ProfileForm { height: 1fr; }
        #sweep { display: none; height: 1fr; }
        &.-sweep #sweep { display: block; }
        &.-sweep ProfileForm, &.-sweep #meaning { display: none; }
        #meaning { height: auto; min-height: 2; max-height: 5; color: $text-muted; }
        #editor { display: none; background: $boost; }
        #said { height: auto; max-height: 6; }
        #cost { height: auto; max-height: 2; color: $text-muted; }
        &.-editing #editor { display: block; }
        &.-picked #right { display: block; }
        &.-narrow #profiles { width: 1fr; }
        &.-narrow.-picked #profiles { display: none; }
        &.-wide #profiles { width: 38; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "start", "Start", key_display="^s"),
        Binding("w", "save", "Save as"),
        Binding("escape", "back", "Back"),
    ]

    def __init__(self, runs: Path) -> None:
        super().__init__()
        self._runs = runs
        self._choices: Sequence[Choice] = ()
        self._choice: Choice | None = None
        self._base: Loaded | None = None
        self._originals: dict[str, Field] = {}
        self._edits: dict[str, tuple[Field, str]] = {}
        self._outcome = Outcome(None)
        self._offer: costs.Offer | None = None  # of the picked profile, if it is a sweep
        self._fields: Sequence[Field] = ()  # of the last profile that could be resolved
        self._edition = 0
        self._settled = -1  # the edition that `_outcome` speaks of
        self._before: tuple[Field, str] | None = None  # the edit of the key being edited, for escape
        self._starting = False
        self._devices: Mapping[str, str] = {}

    def compose(self) -> ComposeResult:
        yield Static("New run: pick a profile", id="title")
        with Horizontal(id="body"):
            yield OptionList(id="profiles", markup=False)
            with Vertical(id="right"):
                yield ProfileForm()
                with ScrollPane(id="sweep"):
                    yield SweepPlan()
                yield Static(id="meaning")
                editor = Editor(id="editor", compact=True, select_on_focus=False)
                editor.cursor_blink = False
                yield editor
                with ScrollPane(id="said"):
                    yield Verdict()
                yield Static(id="cost")
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one(OptionList).focus()
        self._list()
        self._look_at_devices()

    @work(thread=True, group="devices")
    def _look_at_devices(self) -> None:
        from cafe_tui.launch import host

        if sample := host.look(self._runs.absolute()):
            self.post_message(DevicesSeen(host.devices(sample, os.environ.get("CUDA_VISIBLE_DEVICES"))))

    def on_devices_seen(self, message: DevicesSeen) -> None:
        self._devices = message.devices
        if self._choice:
            self._draw()

    # --- picking -----------------------------------------------------------------------------------------------------

    @work(thread=True, group="list")
    def _list(self) -> None:
        try:
            self.post_message(ChoicesRead(forms.choices(self._runs)))
        except CafeError as error:
            self.post_message(ChoicesRead((), str(error)))

    def on_choices_read(self, message: ChoicesRead) -> None:
        self._choices = message.choices
        self.query_one(OptionList).add_options(
            Content.assemble(
                (fmt.printable(choice.title), "bold"), f"  {choice.origin}\n", fmt.printable(choice.purpose) or "-"
            )
            for choice in self._choices
        )
        if message.problem:
            self._say("#title", message.problem)
        elif self._choices:
            self.query_one(OptionList).highlighted = 0

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self._choice = self._choices[event.option_index]
        self._base, self._edits, self._fields = None, {}, ()
        self._say("#title", f"New run: {self._choice.title}")
        self.add_class("-picked")
        self.query_one(ProfileForm).show(())
        self.query_one(ProfileForm).focus()
        self._ask_loader()

    # --- checking ----------------------------------------------------------------------------------------------------

    def _ask_loader(self) -> None:
        self._edition += 1
        if self._choice:
            self._check(self._edition, self._choice.reference, dict(self._edits), self._base)

    @work(thread=True, exclusive=True, group="check")
    def _check(self, edition: int, reference: str, edits: forms.Edits, base: Loaded | None) -> None:
        self.post_message(Checked(edition, forms.check(reference, edits, base)))

    def on_checked(self, message: Checked) -> None:
        if message.edition != self._edition:
            return  # a newer text is being checked
        self._outcome, self._settled = message.outcome, message.edition
        if self._base is None and self._outcome.loaded:
            self._base = self._outcome.loaded
            self._originals = {field.key: field for field in self._outcome.fields}
        self._fields = self._outcome.fields or self._fields
        if sweep := self._outcome.sweep:
            self._price(self._edition, sweep)
        self._draw()

    # --- a sweep -----------------------------------------------------------------------------------------------------

    @work(thread=True, exclusive=True, group="price")
    def _price(self, edition: int, sweep: Sweep[Loaded]) -> None:
        """Tell what a sweep would do, and then how long that takes."""
        lines: list[str] = []
        try:
            offer = costs.offer(self._runs, sweep)
            for line in costs.announcement(offer, lambda: get_current_worker().is_cancelled):
                lines.append(line)
                self.post_message(Offered(edition, offer, tuple(lines)))
        except CafeError as error:
            self.post_message(Tried(problem=str(error)))

    def on_offered(self, message: Offered) -> None:
        if message.edition != self._edition:
            return  # another profile was picked
        self._offer = message.offer
        measuring = ["measuring how long that takes …"] * (len(message.lines) == 1 and bool(message.offer.to_do))
        self.query_one(SweepPlan).show([*message.lines, *measuring], message.offer.rows())
        if not self.has_class("-sweep"):
            self.add_class("-sweep")
            self.query_one("#sweep").focus()
            self._draw()
        self.refresh_bindings()

    def _cost(self) -> str:
        """What starting would come to, in a line."""
        if self._outcome.sweep is None:
            return self._outcome.cost or "cannot be started"
        if self._offer is None:
            return "looking which of its runs are there …"
        return "^s queues what is not finished; it goes on without this screen" if self._offer.to_do else ""

    def _start_sweep(self, offer: costs.Offer) -> None:
        if not offer.to_do:
            self.notify("every run of this sweep is finished", markup=False)
            return
        self._starting = True
        self._say("#cost", "starting …")
        self._queue(offer, self._choice.reference if self._choice else "")

    @work(thread=True, group="start")
    def _queue(self, offer: costs.Offer, reference: str) -> None:
        try:
            queue.start(self._runs, offer.sweep, tags=(), command=["cafe", "run", reference], parallel=offer.parallel)
        except CafeError as error:
            self.post_message(Tried(problem=str(error)))
            return
        self.post_message(
            Tried(queued=f"queued {len(offer.to_do)} run{'s' * (len(offer.to_do) != 1)}, tagged {offer.sweep.tag}")
        )

    def _draw(self, failure: str = "") -> None:
        keys = [f"{problem.split(':', 1)[0]}." for problem in self._outcome.problems]
        wrong = {field.key for field in self._fields if any(key.startswith(f"{field.key}.") for key in keys)}
        self.query_one(ProfileForm).show([self._as_edited(field) for field in self._fields], self._edits, wrong)
        self.query_one(Verdict).show(self._outcome, failure)
        self._say("#cost", self._cost())
        self._explain()

    def _as_edited(self, field: Field) -> Field:
        _, text = self._edits.get(field.key, (field, field.text))
        choices = tuple(self._devices) if field.key == DEVICE and self._devices else field.choices
        return replace(field, text=text, choices=choices)

    def _explain(self) -> None:
        if field := self.query_one(ProfileForm).selected:
            allowed = field.allowed
            if field.key == DEVICE and self._devices:
                allowed += "\n" + "; ".join(f"{name}: {how}" for name, how in self._devices.items())
            self._say("#meaning", f"{field.key}: {field.meaning}\n{allowed}")

    def _say(self, selector: str, text: str) -> None:
        static = self.query_one(selector, Static)
        content = Content("\n".join(map(fmt.printable, text.splitlines())))
        if static.content != content:
            static.update(content)

    # --- editing -----------------------------------------------------------------------------------------------------

    def on_profile_form_moved(self) -> None:
        self._explain()

    def on_profile_form_changed(self, message: ProfileForm.Changed) -> None:
        self._set(message.field.key, message.text)

    def _set(self, key: str, text: str | None) -> None:
        """Edit a key; None, nothing at all (but for the description) and its own text leave it to the profile."""
        original = self._originals[key]
        self._edits.pop(key, None)
        if text is not None and text != original.text and (text or key == "description"):
            self._edits[key] = (original, text)
        self._ask_loader()

    def on_profile_form_edit_asked(self, message: ProfileForm.EditAsked) -> None:
        self._before = self._edits.get(message.field.key)
        editor = self.query_one(Editor)
        with self.prevent(Editor.Changed):
            editor.value = message.field.text
        editor.cursor_position = len(editor.value)
        editor.placeholder = self._originals[message.field.key].text
        self.add_class("-editing")
        editor.focus()

    def on_input_changed(self, event: Editor.Changed) -> None:
        field = self.query_one(ProfileForm).selected
        if field and self.has_class("-editing"):
            self._set(field.key, event.value)

    def on_editor_left(self, message: Editor.Left) -> None:
        form = self.query_one(ProfileForm)
        self.remove_class("-editing")
        if not message.keep and form.selected:
            self._set(form.selected.key, self._before[1] if self._before else None)
        form.focus()
        form.action_move(message.steps)

    # --- leaving -----------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Only a picked profile can be started or saved; a sweep has no form to save."""
        return action not in ("start", "save") or not (self._choice is None or (action == "save" and self._offer))

    def action_back(self) -> None:
        """Back to the profiles, and from there to the runs; asks when edits would be lost."""
        if self._starting:
            return
        if self._choice is None:
            self.dismiss()
        elif self._edits:
            count = f"{len(self._edits)} changed key{'s' * (len(self._edits) != 1)}"
            confirm = Confirm("Leave this form?", f"{count} would be lost; w saves them.", "Leave", "Stay")
            self.app.push_screen(confirm, lambda yes: self._unpick() if yes else None)
        else:
            self._unpick()

    def _unpick(self) -> None:
        self._choice, self._edits, self._outcome, self._offer = None, {}, Outcome(None), None
        self._edition += 1  # what is being checked is of no interest
        self.workers.cancel_group(self, "price")
        self.remove_class("-picked", "-editing", "-sweep")
        self._say("#title", "New run: pick a profile")
        self.query_one(OptionList).focus()
        self.refresh_bindings()

    def action_start(self) -> None:
        """Start the run, if the loader has said that the form as it stands can run."""
        if self._settled != self._edition or self._starting:
            return
        if self._offer:
            self._start_sweep(self._offer)
            return
        if self._outcome.loaded is None:
            self.notify("a profile with problems cannot be started", severity="error", markup=False)
            return
        self._starting = True
        self._say("#cost", "starting …")
        self._start(self._outcome.loaded, self._choice.reference if self._choice else "", forms.overrides(self._edits))

    @work(thread=True, group="start")
    def _start(self, loaded: Loaded, reference: str, changes: Sequence[str]) -> None:
        command = ["cafe", "run", reference, *(word for change in changes for word in ("--set", change))]
        try:
            run, _ = local.start(self._runs, loaded, command=command)
        except CafeError as error:
            self.post_message(Tried(problem=str(error)))
            return
        self.post_message(Tried(run.id))

    def on_tried(self, message: Tried) -> None:
        self._starting = False
        if message.problem:
            self._draw(message.problem)
        else:
            if message.run_id:
                self.app.post_message(RunOpened(message.run_id))
            else:
                self.app.notify(message.queued, markup=False)
            if self.is_current:  # not below the help
                self.dismiss()

    def action_save(self) -> None:
        """Ask for a name and save the form as a profile of that name."""
        choice, edits = self._choice, dict(self._edits)
        if choice is None or self._outcome.loaded is None or self._settled != self._edition:
            self.notify("a profile with problems cannot be saved", severity="error", markup=False)
            return

        def answered(name: str | None) -> None:
            if name and name.strip():
                self._save(choice, name.strip(), edits)

        self.app.push_screen(Prompt("Save as", "A name; the file is ./profiles/NAME.toml."), answered)

    @work(thread=True, group="save")
    def _save(self, choice: Choice, name: str, edits: forms.Edits) -> None:
        try:
            said, severity = f"saved {forms.save(choice, name, edits)}", "information"
        except CafeError as error:
            said, severity = str(error), "error"
        self.app.call_from_thread(self.notify, fmt.printable(said), severity=severity, markup=False)
