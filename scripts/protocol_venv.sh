# Sourced: .venv-protocol with tests/protocol/requirements.txt, made again only when that changed.
stamp=.venv-protocol/requirements.txt
if ! cmp -s tests/protocol/requirements.txt $stamp; then
  rm -rf .venv-protocol
  python3 -m venv .venv-protocol
  .venv-protocol/bin/python -m pip install --quiet --disable-pip-version-check -r tests/protocol/requirements.txt >&2
  cp tests/protocol/requirements.txt $stamp
fi
