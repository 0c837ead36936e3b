"""The keys that work here, and what the method's names mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import ActiveBinding, Binding, BindingType
from textual.screen import ModalScreen

from cafe_tui import format as fmt
from cafe_tui.ui.widgets.accuracies import READINGS
from cafe_tui.ui.widgets.lines import Line, Lines, fit, wrap
from cafe_tui.ui.widgets.scrolling import ScrollPane

KEY_CELLS = 18
NAMES = (
    ("Z", "the instrument: adversarial minus clean features, F_adv - F_nat"),
    ("g, test function", "turns Z into the worst-case counterfactual treatment g(Z); it maximises psi"),
    ("h, hypothesis", "estimates the causal part of a treatment; it minimises psi"),
    ("psi", "the moment they play for: log-likelihood of the true class under h(g(Z)) times that under g(Z), >= 0"),
    ("regret", "what g would still gain in a few more steps against h as it is; about 0 at a saddle point"),
    ("g away from Z", "distance of g(Z) from Z over the length of Z: 0 if g is the identity, a degenerate game"),
    ("spread of h", "share of h(g(Z)) that depends on the example: 0 if h is constant, a degenerate game"),
    *((r.name, f"accuracy of {r.formula}: {fmt.MEANINGS[r.name]}; in a good run {r.expected}") for r in READINGS),
    ("[low, high]", "95% interval: Wilson for an accuracy, paired on the same images for a difference"),
)


def key_rows(bindings: Iterable[tuple[str, ActiveBinding]]) -> list[tuple[str, str]]:
    """Keys and what they do, from (shown key, binding) pairs; the keys of one action share a row."""
    rows: dict[str, tuple[list[str], str]] = {}
    for key, active in bindings:
        if active.binding.description and not active.binding.system:
            keys, _ = rows.setdefault(active.binding.action, ([], active.binding.description))
            if key not in keys:
                keys.append(key)
    return [(" ".join(keys), description) for keys, description in rows.values()]


class HelpLines(Lines):
    """Two headed lists of (word, meaning)."""

    def __init__(self, sections: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> None:
        super().__init__()
        self._sections = sections

    def compose_lines(self, cells: int) -> list[Line]:
        """Every section: its title, then words and wrapped meanings side by side."""
        lines: list[Line] = []
        for title, rows in self._sections:
            lines += [((title, "accent"),)]
            for word, meaning in rows:
                for number, part in enumerate(wrap(meaning, max(cells - KEY_CELLS, 10))):
                    lines.append(((fit(word if number == 0 else "", KEY_CELLS), "strong"), (part, "")))
            lines.append(())
        return lines[:-1]


class HelpScreen(ModalScreen[None]):
    """Shows `keys` (as from `key_rows`) and the glossary of the method."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark", "dismiss", "Close", key_display="esc"),
    ]

    def __init__(self, keys: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._keys = keys

    def compose(self) -> ComposeResult:
        with ScrollPane(id="help"):
            yield HelpLines((("Keys", self._keys), ("Names", NAMES)))
