#!/usr/bin/env bash
# What somebody gets who installs the wheel and has no source: `chrep demo`, and File > Open Sample in napari.
#
# The wheel is built from the sdist and installed into an environment of its own. All else that environment takes from
# .venv, as a second torch and napari would cost 3 GB and some minutes; that the source is not found there is checked.
#
# Usage: tools/test_wheel.sh, after tools/setup.sh test.
set -euo pipefail
cd "$(dirname "$0")/.."

source=$PWD
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

.venv/bin/python -m build --outdir "$place/dist" . >"$place/build.log" 2>&1 || { cat "$place/build.log"; exit 1; }
du -h "$place"/dist/*

.venv/bin/python -m venv --without-pip "$place/venv"
python=$place/venv/bin/python
.venv/bin/python -m pip --python "$python" install -q --no-deps "$place"/dist/*.whl
# A folder in a .pth file is looked into, and the .pth files in it, the one of the editable source among them, are not.
.venv/bin/python -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' \
  >"$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/others.pth"

# Nothing is downloaded: without a network where the system can take it away, and else by what libraries heed.
offline=(env HF_HUB_OFFLINE=1)
if unshare -rn true 2>/dev/null; then offline+=(unshare -rn); fi

mkdir "$place/elsewhere"
cd "$place/elsewhere"
unset PYTHONPATH CHREP_SAMPLE_DATA QT_QPA_PLATFORM
export CHREP_CACHE=$place/cache NAPARI_CONFIG=$place/napari.yaml

"${offline[@]}" "$place/venv/bin/chrep" demo --no-gui -o demo
for file in SYNTHETIC_demo.chrep/card.json SYNTHETIC_slide.h5ad SYNTHETIC_slide_ERBB2.png; do
  [ -s "demo/$file" ] || { echo "demo/$file was not written"; exit 1; }
done

display=()
if [ -z "${DISPLAY:-}" ]; then display=(xvfb-run -a -s "-screen 0 1280x800x24"); fi
"${offline[@]}" "${display[@]}" "$python" -P "$source/tools/open_samples.py" "$place/venv"
