"""Writes the grids of profiles/standard and profiles/paper: `make profiles`.

One profile for each data set, network and defence: the adversarially trained network, the game on it, the defence with
and without inoculation from there on, and the table of all three.
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

PROFILES = Path(__file__).resolve().parents[1] / "profiles"
DATA = ("cifar10", "svhn", "tiny-imagenet")
MODELS = ("vgg16", "resnet18", "wrn-34-10")
DEFENCES = ("adv", "trades", "mart", "awp", "help")
FOLDERS = {
    "standard": {
        "preset": "standard",
        "purpose": "sound settings: eps 8/255 (Tiny-ImageNet 4/255), selection on held-out images, AutoAttack in full",
        "more": "",
    },
    "paper": {
        "preset": "paper-code",
        "purpose": "the paper's code: eps 0.03 (Tiny-ImageNet 4/255), AP and DLR of 30 steps, AA of CE and DLR alone",
        "more": """
[[stage]]
id = "autoattack"
kind = "evaluate"
models = ["adv", "defend", "inoculate"]
attacks = ["aa-paper"]
samples = 0
""",
    },
}
STANDARD_STAGE = """[[stage]]
id = "plain"
kind = "train"
defence = "standard"

"""
BASE = """#:schema ../profile.schema.json
# {purpose}.
#
# What the profiles of this folder share{also}; made by `make profiles`. The preset has the settings of each data set
# and network: `cafe profile {folder}/cifar10-vgg16-trades` shows them.
preset = "{preset}"
name = "{name}"
description = "CAFE on {name}"

{standard}[[stage]]
id = "adv"
kind = "train"
defence = "adv"

[[stage]]
kind = "game"
base = "adv"

[[stage]]
id = "defend"             # the defence alone, from the same network and for as many epochs as with inoculation
kind = "train"
start = "adv"
defence = "{defence}"

[[stage]]
kind = "inoculate"
start = "adv"
defence = "{defence}"

[[stage]]
kind = "evaluate"
models = ["adv", "defend", "inoculate"]
{more}"""
LEAF = """#:schema ../profile.schema.json
# {defence} with and without CAFE on {data}, {model}: {purpose}.
#
#   cafe data prepare {data}
#   cafe run {folder}/{stem}
extends = "{base}.toml"
name = "{stem}"
description = "{defence} with and without CAFE on {data}, {model}: {purpose}"

[data]
name = "{data}"

[model]
name = "{model}"

[set]
"stage.defend.defence" = "{defence}"
"stage.inoculate.defence" = "{defence}"
"""


def main(profiles: Path) -> None:
    """Write them all into their folders under `profiles`."""
    for name, words in FOLDERS.items():
        folder = profiles / name
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*.toml"):
            path.unlink()
        purpose = words["purpose"][0].upper() + words["purpose"][1:]
        for base, standard, defence, also in (
            ("base", "", "trades", ""),
            ("base-help", STANDARD_STAGE, "help", ", where the defence asks a standard network"),
        ):
            shared = {"name": f"{name}-{base}", "folder": name, "standard": standard, "defence": defence, "also": also}
            text = BASE.format(**(words | {"purpose": purpose} | shared))
            (folder / f"{base}.toml").write_text(text.rstrip() + "\n", encoding="utf-8")
        for data, model, defence in product(DATA, MODELS, DEFENCES):
            stem = f"{data}-{model}-{defence}"
            base = "base-help" if defence == "help" else "base"
            names = {"folder": name, "stem": stem, "base": base, "data": data, "model": model}
            text = LEAF.format(**names, defence=defence, purpose=words["purpose"])
            (folder / f"{stem}.toml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PROFILES)
