#!/usr/bin/env bash
# The tests' Python packages in .venv-test, made again only when tests/requirements.txt changed.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv-test/requirements.sha256
wanted=$(python3 -c 'import hashlib, sys; print(hashlib.sha256(open("tests/requirements.txt", "rb").read() + sys.version.encode()).hexdigest())')
if [ -f $stamp ] && [ "$(cat $stamp)" = "$wanted" ]; then exit 0; fi

echo "venv: installing tests/requirements.txt into .venv-test" >&2
rm -rf .venv-test
python3 -m venv .venv-test
.venv-test/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/requirements.txt >&2
echo "$wanted" >$stamp
