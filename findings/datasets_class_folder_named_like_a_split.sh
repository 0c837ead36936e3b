#!/usr/bin/env bash
# A class folder whose name begins with the name of a split, such as test_tube, puts training pictures into the test set.
#
# Version:   datasets 5.2.0 (with pillow 13.0.0), `load_dataset("imagefolder", data_dir=...)`, nothing downloaded.
# Input:     train/{beaker,test_tube} with two pictures each, test/{beaker,test_tube} with one each.
# Expected:  4 training pictures, 2 test pictures, none in both.
# Seen:      the test set has 5 rows: both pictures of train/test_tube are in it as well as in the training set, and the
#            picture of test/test_tube is in it twice. No warning is printed. An accuracy on that test set is partly one
#            on training pictures.
# Exit code: 0 as long as it is so, 1 if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 pillow==13.0.0
HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1 HF_HOME="$folder/home" "$folder/venv/bin/python" - "$folder/set" <<'PY'
import sys
from pathlib import Path

from datasets import Image as Picture
from datasets import load_dataset
from PIL import Image

root = Path(sys.argv[1])
for split, count in (("train", 2), ("test", 1)):
    for name in ("beaker", "test_tube"):
        (root / split / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (i, count, len(name))).save(root / split / name / f"{i}.png")
loaded = load_dataset("imagefolder", data_dir=str(root)).cast_column("image", Picture(decode=False))
rows = {
    split: sorted(Path(row["image"]["path"]).relative_to(root).as_posix() for row in part)
    for split, part in loaded.items()
}
for split, paths in rows.items():
    print(f"{split}: {', '.join(paths)}")
tube = ["test/test_tube/0.png", "test/test_tube/0.png", "train/test_tube/0.png", "train/test_tube/1.png"]
as_seen = len(rows["train"]) == 4 and rows["test"] == ["test/beaker/0.png", *tube]
print("as stated" if as_seen else "this has changed")
sys.exit(not as_seen)
PY
