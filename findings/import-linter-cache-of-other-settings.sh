#!/usr/bin/env bash
# import-linter 2.17 with grimp 3.20: after a run with other settings, a broken contract is reported as kept, by the cache.
#
# grimp keeps what it read of the modules in .import_linter_cache: one data file for each combination of the settings that
# change the graph (here exclude_type_checking_imports), but one list of modification times for all of them. A run with
# one setting that reads a changed module writes the module's new time into that list. A run with the other setting then
# takes its own older data for current: an import that was added since is not seen, and the exit code is 0. It stays so
# until the module changes again or the cache is removed. Two configuration files in one folder, which are run one after
# the other, or a branch that changes the setting, are enough.
#
# Seen:
#     import-linter 2.17, grimp 3.20: exit codes after the change: a.ini 1 (fresh), b.ini 0 (cached), b.ini 1 (--no-cache)
#
# The script needs python3 with pip. It fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$folder/site" import-linter==2.17 grimp==3.20
export PYTHONPATH=$folder/site:$folder
cd "$folder"
mkdir shop
touch shop/__init__.py shop/low.py shop/high.py
settings() {
  cat <<INI
[importlinter]
root_package = shop
exclude_type_checking_imports = $1

[importlinter:contract:layers]
name = layers
type = layers
layers =
    shop.high
    shop.low
INI
}
settings False > a.ini
settings True > b.ini
lint() { python3 -W ignore -c 'from importlinter.cli import lint_imports_command as run; run()' "$@" >/dev/null && echo 0 || echo $?; }
kept="$(lint a.ini) $(lint b.ini)"
sleep 1.1
echo "from shop import high" > shop/low.py  # now the lower layer imports the upper one
fresh=$(lint a.ini)
cached=$(lint b.ini)
uncached=$(lint b.ini --no-cache)
versions=$(python3 -c 'from importlib.metadata import version as v; print(*(f"{n} {v(n)}" for n in ("import-linter", "grimp")), sep=", ")')
echo "$versions: exit codes after the change: a.ini $fresh (fresh), b.ini $cached (cached), b.ini $uncached (--no-cache)"
[[ "$kept $fresh $cached $uncached" == "0 0 1 0 1" ]]
