# Sourced by the scripts beside it that need packages of Debian, of its mirror that apt is set up with. Neither the
# system's packages nor apt's configuration is touched. They work in a folder of their own, which is removed at the end.
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} 2>/dev/null |
  grep -E '^(deb|URIs:) ' | grep -oE '[a-z+]+://[^ ]*debian[^ ]*' | grep -vi security | head -1) || true
[[ $mirror ]] || { echo "apt names no mirror of Debian here" >&2 && exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# Run apt-get with no package installed, so that it downloads all that is needed.
apt_apart() {
  apt-get -q -y -o Dir::Etc="$work/etc" -o Dir::State="$work/state" -o Dir::State::status="$work/status" \
    -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root -o Acquire::Languages=none \
    -o APT::Install-Recommends=false -o DPkg::Pre-Install-Pkgs::=true "$@" >"$work/log" 2>&1
}

fail() {
  tail -n 20 "$work/log" >&2
  exit 1
}

# Let apt know the packages (deb) or the sources (deb-src) of one suite. Options of apt may follow.
prepare_apt() {
  mkdir -p etc/apt.conf.d etc/preferences.d etc/sources.list.d state/lists/partial cache/archives/partial
  : >status
  cp -r /etc/apt/apt.conf.d/. etc/apt.conf.d/
  printf '%s\n' "Types: $1" "URIs: $mirror" "Suites: $2" "Components: main" \
    "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg" >etc/sources.list.d/debian.sources
  apt_apart update "${@:3}"
}
