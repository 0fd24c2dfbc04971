#!/usr/bin/env bash
# Build a Python without a GIL from Debian's sources, once, in some minutes, and print the folder to put on PATH:
#   PATH+=:$(tests/smoke/free-threaded-python.sh 3.13)     and then python3.13t
# It is kept below ${XDG_CACHE_HOME:-~/.cache}/openrtc-introspect, and cannot be moved. The sources are those of the
# newest suite of Debian whose mirror has them. What is missing is said in one line.
set -euo pipefail
version=${1-}
if [[ ! $version =~ ^3\.1[3-9]$ ]]; then
  echo "${version:-nothing} is not accepted: a version from 3.13 on, such as 3.14" >&2
  exit 1
fi
folder=${XDG_CACHE_HOME:-$HOME/.cache}/openrtc-introspect/python${version}t
[[ -x $folder/bin/python${version}t ]] && echo "$folder/bin" && exit

lacks() {
  echo "python${version}t cannot be built: $1" >&2
  exit 1
}

for program in apt-get make "${CC:-cc}"; do
  command -v "$program" >/dev/null || lacks "there is no $program"
done
for needed in zlib.h:zlib1g-dev openssl/ssl.h:libssl-dev ffi.h:libffi-dev; do
  echo "#include <${needed%:*}>" | "${CC:-cc}" -E - >/dev/null 2>&1 ||
    lacks "${needed%:*} is missing, of Debian's ${needed#*:}"
done
. "$(dirname "${BASH_SOURCE[0]}")/debian-apart.sh"

# A mirror may list a version whose files it has not: the next suite has another one.
download() {
  for suite in unstable testing stable; do
    prepare_apt deb-src "$suite" && apt_apart source --download-only "python$version" && return
  done
  false
}
download || lacks "Debian's mirror has no sources of python$version"
tar -xf python"$version"_*.orig.tar.*z*
build() {
  ./configure --disable-gil --prefix="$folder" --without-ensurepip --disable-test-modules &&
    make -s -j"$(nproc)" && make -s altinstall DESTDIR="$work/installed"
}
(cd Python-* && build) >log 2>&1 || fail
rm "installed$folder/bin/python$version" # a link, which would take the place of the Python with a GIL
mkdir -p "$(dirname "$folder")"
mv -T "installed$folder" "$folder"
echo "$folder/bin"
