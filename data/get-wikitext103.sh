#!/bin/bash
# WikiText-103, raw form (CC BY-SA): 192 MB, unpacked to data/wikitext-103-raw/. Usage: data/get-wikitext103.sh [FOLDER]
. "$(dirname "$0")/get.sh"
to=${1:-$(dirname "$0")/wikitext-103-raw}
need curl unzip
fetch https://wikitext.smerity.com/wikitext-103-raw-v1.zip "$to/wikitext-103-raw-v1.zip" \
    91c00ae287f0d699e18605c84afc9e45c192bc6b7797ff8837e5474655a33794
unzip -q -o -j "$to/wikitext-103-raw-v1.zip" '*wiki.*.raw' -d "$to" || die "$to/wikitext-103-raw-v1.zip cannot be unpacked"
[ -s "$to/wiki.test.raw" ] || die "there is no wiki.test.raw in the archive"
if [ -z "${AST_SUM:-}" ]; then
    verify "$to/wiki.test.raw" 173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08 ||
        die "$to/wiki.test.raw is not the text that published results refer to"
fi
echo "ready: asterism run jobs/wikitext.cfg"
