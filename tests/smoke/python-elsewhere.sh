#!/usr/bin/env bash
# Put a Python that is not for this system into a folder of its own:
#   python-elsewhere.sh arm64 FOLDER     Debian's for arm64; run it with qemu-aarch64 -L FOLDER FOLDER/usr/bin/python3
#   python-elsewhere.sh musl FOLDER      Debian's sources, compiled with musl-gcc, in some minutes: FOLDER/bin/python3
# Both are of the system's own Debian release. The folder of the second cannot be moved.
set -euo pipefail
kind=$1 folder=$(realpath -m "$2")
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
. "$(dirname "${BASH_SOURCE[0]}")/debian-apart.sh"

python_for_arm64() {
  local arm64=(-o APT::Architecture=arm64 -o APT::Architectures::=arm64)
  prepare_apt deb "$suite" "${arm64[@]}" || fail
  apt_apart "${arm64[@]}" install --download-only python3 || fail
  for package in cache/archives/*.deb; do dpkg-deb --extract "$package" root; done
  mkdir -p "$folder"
  cp -a root/. "$folder"
}

# zlib and OpenSSL come first: builds of wheels need the one, and anyio imports the other.
python_for_musl() {
  prepare_apt deb-src "$suite" || fail
  local version
  version=$(apt-cache show python3 | sed -n 's/^Depends:.*python\(3\.[0-9]*\).*/\1/p' | head -1)
  apt_apart source --download-only zlib openssl "python$version" || fail
  shopt -s nullglob
  for archive in *.orig.tar.{gz,xz,bz2}; do tar -xf "$archive"; done
  # Python's build looks into the folders of the system's C library, too, and asks which those are.
  cat >musl-cc <<'SCRIPT'
#!/usr/bin/env bash
[[ $1 == --print-multiarch ]] && exit
for word; do case $word in -[IL]/usr/* | -L/lib/*) ;; *) kept+=("$word") ;; esac; done
exec musl-gcc "${kept[@]}"
SCRIPT
  chmod +x musl-cc
  export CC=$work/musl-cc CFLAGS="-O1 -fPIC -I$folder/include" LDFLAGS="-L$folder/lib" PKG_CONFIG=false
  { in_folder zlib-* build_zlib && in_folder openssl-* build_openssl && in_folder Python-* build_python; } >log 2>&1 || fail
}

in_folder() { (cd "$1" && "$2"); }
build_zlib() { ./configure --static --prefix="$folder" && make -s -j"$(nproc)" install; }
build_openssl() {
  ./Configure linux-x86_64 no-shared no-asm no-tests no-engine no-dso no-afalgeng no-ktls no-secure-memory \
    --prefix="$folder" --libdir=lib && make -s -j"$(nproc)" build_libs && make -s install_dev
}
build_python() {
  ./configure --prefix="$folder" --with-openssl="$folder" --without-ensurepip --disable-test-modules &&
    make -s -j"$(nproc)" && make -s install
}

case $kind in
  arm64) [[ -x $folder/usr/bin/python3 ]] || python_for_arm64 ;;
  musl) [[ -x $folder/bin/python3 ]] || python_for_musl ;;
  *) echo "$kind is not accepted: arm64 or musl" >&2 && exit 1 ;;
esac
