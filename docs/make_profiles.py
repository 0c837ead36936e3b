"""Writes the grids of profiles/standard and profiles/paper: `make profiles`.

One profile for each data set, network and defence: the adversarially trained network, the game on it, the defence with
and without inoculation from there on, and the table of all three.
"""

from __future__ import annotations

import sys
from pathlib import Path

PROFILES = Path(__file__).resolve().parents[1] / "profiles"
GAMMAS = {
    "cifar10": {"vgg16": "0.03", "resnet18": '"4/255"', "wrn-34-10": '"2/255"'},
    "svhn": {"vgg16": '"4/255"', "resnet18": '"1/255"', "wrn-34-10": '"1/255"'},
}
"""Radius of the causal inversion by data set and network."""
DEFENCES = ("adv", "trades", "mart", "awp", "help")
PRESETS = {
    "standard": {
        "purpose": "sound settings: eps 8/255, selection on held-out images, AutoAttack in full",
        "threat": 'eps = "8/255"',
        "attacks": '["clean", "fgsm", "pgd", "cw", "apgd-ce", "apgd-dlr", "aa"]',
        "budget": "",
    },
    "paper": {
        "purpose": "the figures of the paper's code: eps 0.03, AP and DLR of 30 steps, AutoAttack of CE and DLR alone",
        "threat": "eps = 0.03",
        "attacks": '["clean", "fgsm", "pgd", "cw", "apgd-ce", "apgd-dlr"]',
        "budget": 'apgd_steps = 30\n\n[[stage]]\nid = "autoattack"\nkind = "evaluate"\n'
        'models = ["adv", "defend", "inoculate"]\nattacks = ["aa-paper"]\nsamples = 0\n',
    },
}
STANDARD_STAGE = """[[stage]]
id = "plain"
kind = "train"
defence = "standard"
lr = 0.1

"""
BASE = """#:schema ../profile.schema.json
# {purpose}.
#
# What the profiles of this folder share{also}; made by `make profiles`.
name = "{name}"
description = "CAFE on {name}"

[threat]
norm = "linf"
{threat}

{standard}[[stage]]
id = "adv"
kind = "train"            # PGD-10, SGD 0.9, learning rate up for 5 epochs and down to 0 after 30
defence = "adv"
warmup_epochs = 5

[[stage]]
kind = "game"
base = "adv"

[[stage]]
id = "defend"             # the defence alone, from the same network and for as many epochs as with inoculation
kind = "train"
start = "adv"
defence = "{defence}"
epochs = 4
batch_size = 64
lr = 1e-3
warmup_epochs = 2

[[stage]]
kind = "inoculate"
start = "adv"
defence = "{defence}"
gamma = 0.03

[[stage]]
kind = "evaluate"
models = ["adv", "defend", "inoculate"]
attacks = {attacks}
{budget}"""
LEAF = """#:schema ../profile.schema.json
# {defence} with and without CAFE on {data}, {model}: {purpose}.
#
#   cafe data prepare {data}
#   cafe run {preset}/{stem}
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
"stage.inoculate.gamma" = {gamma}
"""


def main(profiles: Path) -> None:
    """Write them all into the folders of the presets under `profiles`."""
    for preset, words in PRESETS.items():
        folder = profiles / preset
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*.toml"):
            path.unlink()
        for base, standard, defence, also in (
            ("base", "", "trades", ""),
            ("base-help", STANDARD_STAGE, "help", ", where the defence asks a standard network"),
        ):
            purpose = words["purpose"][0].upper() + words["purpose"][1:]
            text = BASE.format(
                **(words | {"purpose": purpose}), name=f"{preset}-{base}", standard=standard, defence=defence, also=also
            )
            (folder / f"{base}.toml").write_text(text.rstrip() + "\n", encoding="utf-8")
        for data, gammas in GAMMAS.items():
            for model, gamma in gammas.items():
                for defence in DEFENCES:
                    stem = f"{data}-{model}-{defence}"
                    base = "base-help" if defence == "help" else "base"
                    names = {"preset": preset, "stem": stem, "base": base, "data": data, "model": model}
                    text = LEAF.format(**names, defence=defence, gamma=gamma, purpose=words["purpose"])
                    (folder / f"{stem}.toml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PROFILES)
