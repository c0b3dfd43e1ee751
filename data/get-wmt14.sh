#!/bin/bash
# newstest2014 En-De, all 3,003 sentences (WMT14's test-full; research use): unpacked to data/wmt14/ as newstest2014.en and
# .de, one sentence a line. sacreBLEU calls this set wmt14/full; its "wmt14" is a filtered one of 2,737 sentences.
# Usage: data/get-wmt14.sh [FOLDER]
. "$(dirname "$0")/get.sh"
to=${1:-$(dirname "$0")/wmt14}
need curl tar sed
fetch https://www.statmt.org/wmt14/test-full.tgz "$to/test-full.tgz" a8cd784e006feb32ac6f3d9ec7eb389a
lines() # the segments of an SGM file, entities decoded
{
    tar -xzOf "$to/test-full.tgz" "test-full/$1" |
        sed -n -E 's/.*<seg[^>]*>[ \t]*(.*[^ \t])[ \t]*<\/seg>.*/\1/p' |
        sed -e 's/&quot;/"/g' -e "s/&apos;/'/g" -e 's/&lt;/</g' -e 's/&gt;/>/g' -e 's/&amp;/\&/g'
}
lines newstest2014-deen-src.en.sgm >"$to/newstest2014.en" || true
lines newstest2014-deen-ref.de.sgm >"$to/newstest2014.de" || true
en=$(wc -l <"$to/newstest2014.en") de=$(wc -l <"$to/newstest2014.de")
[ "$en" = "$de" ] && [ "$en" -gt 0 ] || die "$en English and $de German sentences: the archive does not hold what is expected"
[ -n "${AST_SUM:-}" ] || [ "$en" = 3003 ] || die "$en sentences instead of 3003"
echo "ready ($en sentences): asterism run jobs/wmt14.cfg"
