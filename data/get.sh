# What the get-*.sh scripts share; not run by itself. Each names its archive, where it comes from and its checksum.
#   AST_MIRROR=URL   fetch the archive from URL/NAME instead of its home (also file:///folder)
#   AST_SUM=SUM      expect this checksum instead of the published one: for an archive of your own
set -eu

die() { echo "$(basename "$0"): $*" >&2; exit 1; }

# verify FILE SUM: md5 or SHA-256, told by the length
verify()
{
    local got
    case ${#2} in
        32) got=$(md5sum "$1") ;;
        64) got=$(sha256sum "$1") ;;
        *) die "a checksum of ${#2} digits is neither md5 nor SHA-256" ;;
    esac
    [ "${got%% *}" = "$2" ]
}

# download URL FILE [OPTIONS]: curl's exit code goes to $failed
download()
{
    failed=0
    curl --fail --location --retry 3 --output "$2" "${@:3}" "$1" || failed=$?
    return $failed
}

# fetch URL FILE SUM: downloads to FILE (continuing a partial one) unless it is there and right
fetch()
{
    local url=$1 file=$2 sum=${AST_SUM:-$3}
    [ -z "${AST_MIRROR:-}" ] || url=$AST_MIRROR/$(basename "$file")
    if [ -e "$file" ] && verify "$file" "$sum"; then
        echo "$file is there already and its checksum is right"
        return
    fi
    echo "fetching $url"
    mkdir -p "$(dirname "$file")"
    if ! download "$url" "$file.part" --continue-at -; then
        # A server without byte ranges cannot continue what an earlier run has left (curl's 33 and 36): from the start.
        [ -s "$file.part" ] && [[ $failed == 33 || $failed == 36 ]] && rm -f "$file.part" && download "$url" "$file.part" ||
            die "$url cannot be fetched; put the archive at $file yourself and run this again"
    fi
    if ! verify "$file.part" "$sum"; then
        mv "$file.part" "$file.damaged"
        die "the checksum of $url is not $sum; what came is kept as $file.damaged"
    fi
    mv "$file.part" "$file"
}

# need TOOL...
need() { local t; for t in "$@"; do command -v "$t" >/dev/null || die "$t is needed: apt-get install $t"; done; }
