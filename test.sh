#!/usr/bin/env bash
# Everything that must hold before a change lands. Run it in a clone: bash test.sh
# It makes .venv with what the tests need (uv if there is one, pip otherwise), then runs style, types, notebooks, documentation and tests.
set -euo pipefail
cd "$(dirname "$0")"
export OMP_NUM_THREADS=1 MPLBACKEND=agg HF_HUB_OFFLINE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}"
step() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }

step 'environment'
venv=${VENV:-.venv}
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
export PATH="$PWD/$venv/bin:$PATH" VIRTUAL_ENV="$PWD/$venv"
command -v uv >/dev/null || python -m pip install -q uv
uv pip install -q "torch${TORCH_VERSION:-==2.13.0}" -e '.[dev]'

step 'notebooks and modules agree'
nbdev_clean && nbdev_export
git diff --exit-code -- nbs vllm_tuner pyproject.toml
test -z "$(git status --porcelain -- nbs vllm_tuner)" || { echo 'files under nbs/ or vllm_tuner/ are not committed:'; git status --porcelain -- nbs vllm_tuner; exit 1; }

step 'style and types'
ruff check vllm_tuner nbs tests tools docs conftest.py setup.py
mypy

step 'notebook cells as written'
nbdev_test --n_workers 2

step 'README and site'
python -W ignore docs/build.py
git diff --exit-code -- README.md nbs/README.md

step 'tests, with the cells against the exported modules'
NB_MODULE=1 python -m pytest -p no:cacheprovider -n 2 --dist loadfile --cov=vllm_tuner --cov-report=term:skip-covered "$@"
