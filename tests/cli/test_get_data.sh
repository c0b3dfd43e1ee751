#!/bin/bash
# data/get-*.sh against small archives of the same form on a local file server: fetched, continued, verified, unpacked, refused
# if damaged.
dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$dir"' EXIT
passed=0 failed=0
check() # NAME WANT GOT
{
    if [ "$2" = "$3" ]; then
        passed=$((passed + 1)); echo "ok $((passed + failed)) - $1"
    else
        failed=$((failed + 1)); echo "not ok $((passed + failed)) - $1"; echo "# want: $2"; echo "# got:  $3"
    fi
}
for tool in curl unzip python3; do
    command -v $tool >/dev/null || { echo "ok 1 - get scripts # SKIP skipped: $tool is absent"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }
done
mkdir -p "$dir/home/test-full" "$dir/home/qa" "$dir/home/evidence/wikipedia"
# A web server of our own at a port that is free.
python3 -u -c "
import functools, http.server
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory='$dir/home')
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
print(server.server_port)
server.serve_forever()" >"$dir/port" 2>"$dir/requests" &
server=$!
for try in $(seq 50); do [ -s "$dir/port" ] && break; sleep 0.1; done
home=http://127.0.0.1:$(cat "$dir/port")
unset http_proxy HTTP_PROXY https_proxy HTTPS_PROXY all_proxy ALL_PROXY
sum() { sha256sum "$1" | cut -d' ' -f1; }
get() # SCRIPT ARCHIVE TO...
{
    local s=$1 a=$2; shift 2
    AST_MIRROR=$home AST_SUM=$(sum "$dir/home/$a") data/get-$s.sh "$@" 2>&1 | tail -n 1
}

python3 -c "
import zipfile
z = zipfile.ZipFile('$dir/home/wikitext-103-raw-v1.zip', 'w')
z.writestr('wikitext-103-raw/wiki.test.raw', ' \n = A = \n \n text \n')
z.writestr('wikitext-103-raw/wiki.valid.raw', 'x\n')"
get wikitext103 wikitext-103-raw-v1.zip "$dir/w" >"$dir/log"
check "WikiText-103 is unpacked without its folder" ' = A = ' "$(sed -n 2p "$dir/w/wiki.test.raw" 2>/dev/null)"
check "and what to do next is said" "ready: asterism run jobs/wikitext.cfg" "$(cat "$dir/log")"

printf '<srcset>\n<doc>\n<seg id="1">A &amp; B</seg>\n<seg id="2"> Two. </seg>\n</doc>\n' >"$dir/home/test-full/newstest2014-deen-src.en.sgm"
printf '<refset>\n<seg id="1">A &amp; B</seg>\n<seg id="2">Zwei.</seg>\n' >"$dir/home/test-full/newstest2014-deen-ref.de.sgm"
tar -czf "$dir/home/test-full.tgz" -C "$dir/home" test-full
get wmt14 test-full.tgz "$dir/t" >/dev/null
check "WMT14 becomes one sentence a line" $'A & B\nTwo.' "$(cat "$dir/t/newstest2014.en" 2>/dev/null)"
check "on both sides" $'A & B\nZwei.' "$(cat "$dir/t/newstest2014.de" 2>/dev/null)"

echo '{"Data": []}' >"$dir/home/qa/wikipedia-dev.json"
echo text >"$dir/home/evidence/wikipedia/A.txt"
tar -czf "$dir/home/triviaqa-rc.tar.gz" -C "$dir/home" qa evidence
get triviaqa triviaqa-rc.tar.gz "$dir/q" >/dev/null
check "TriviaQA keeps its layout" "text" "$(cat "$dir/q/evidence/wikipedia/A.txt" 2>/dev/null)"
check "the web server was asked for each" 3 "$(grep -c '"GET .* 200' "$dir/requests")"
get triviaqa triviaqa-rc.tar.gz "$dir/q" >/dev/null
check "what is there already is not fetched again" 3 "$(grep -c '"GET .* 200' "$dir/requests")"
mkdir -p "$dir/p"
head -c 40 "$dir/home/triviaqa-rc.tar.gz" >"$dir/p/triviaqa-rc.tar.gz.part"
get triviaqa triviaqa-rc.tar.gz "$dir/p" >"$dir/log"
check "half an archive is completed, also from a server that cannot continue" "ready: asterism run jobs/triviaqa.cfg" "$(cat "$dir/log")"
mkdir -p "$dir/r"
head -c 40 "$dir/home/triviaqa-rc.tar.gz" >"$dir/r/triviaqa-rc.tar.gz.part"
AST_MIRROR=file://$dir/home AST_SUM=$(sum "$dir/home/triviaqa-rc.tar.gz") data/get-triviaqa.sh "$dir/r" >/dev/null 2>&1
check "and continued where a server can" "$(sum "$dir/home/triviaqa-rc.tar.gz")" "$(sum "$dir/r/triviaqa-rc.tar.gz")"

echo damaged >>"$dir/home/triviaqa-rc.tar.gz"
AST_MIRROR=$home data/get-triviaqa.sh "$dir/bad" >/dev/null 2>"$dir/log"
check "a wrong checksum is an error" 1 $?
check "that says so" 1 "$(grep -c 'checksum of .* is not ef94fac6' "$dir/log")"
check "and nothing is unpacked" "" "$(ls "$dir/bad" | grep -v damaged)"
AST_MIRROR=$home/nowhere data/get-wmt14.sh "$dir/none" >/dev/null 2>"$dir/log"
check "an archive that cannot be fetched is an error" 1 $?
echo "1..$((passed + failed))"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
