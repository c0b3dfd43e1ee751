#!/bin/bash
# TriviaQA reading comprehension with its evidence documents (2.7 GB, 7.3 GB unpacked), to data/triviaqa-rc/ with qa/ and
# evidence/. The Wikipedia part alone is unpacked unless "web" is asked for. Usage: data/get-triviaqa.sh [FOLDER] [web]
. "$(dirname "$0")/get.sh"
to=${1:-$(dirname "$0")/triviaqa-rc}
need curl tar
fetch https://nlp.cs.washington.edu/triviaqa/data/triviaqa-rc.tar.gz "$to/triviaqa-rc.tar.gz" \
    ef94fac6db0541e5bb5b27020d067a8b13b1c1ffc52717e836832e02aaed87b9
what=(--wildcards '*qa/wikipedia-*' '*evidence/wikipedia/*')
[ "${2:-}" != web ] || what=()
# The archive's names may or may not begin with "triviaqa-rc/" or "./".
tar -xzf "$to/triviaqa-rc.tar.gz" -C "$to" --transform 's,^\./,,;s,^triviaqa-rc/,,' "${what[@]}" ||
    die "$to/triviaqa-rc.tar.gz cannot be unpacked"
[ -s "$to/qa/wikipedia-dev.json" ] && [ -d "$to/evidence/wikipedia" ] || die "qa/wikipedia-dev.json or evidence/wikipedia is not in the archive"
echo "ready: asterism run jobs/triviaqa.cfg"
