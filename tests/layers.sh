#!/bin/bash
# The include fence: which folder may include what. One line is one decision.
cd "$(dirname "$0")/.." || exit 2
bad=0 files=0

std='assert complex ctype errno fenv float inttypes limits locale math setjmp signal stdalign stdarg stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string strings time wchar
dirent dlfcn fcntl fnmatch glob libgen poll pthread regex sched spawn unistd getopt sys/file sys/ioctl sys/mman sys/random sys/resource sys/socket sys/stat sys/statvfs sys/syscall sys/time sys/types sys/uio sys/un sys/utsname sys/wait omp sanitizer/asan_interface linux/fs'

# may FOLDER WHAT...: quoted includes of FOLDER start with FOLDER/ or one of WHAT; a word ending in .h is a library's header
may()
{
    local dir=$1 f line inc ok w; shift
    for f in "$dir"/*.[ch]; do
        [ -e "$f" ] || continue
        files=$((files + 1))
        while IFS= read -r line; do
            inc=$(sed -E 's/^[ \t]*#[ \t]*include[ \t]*["<]([^">]*)[">].*/\1/' <<<"$line")
            ok=0
            if [[ $line == *\"* ]]; then
                for w in "${dir#src/}" "$@"; do
                    [[ ${inc%/*} == "$w" ]] && ok=1
                done
            else
                [[ " $(echo $std) " == *" ${inc%.h} "* ]] && ok=1
                for w in "$@"; do
                    [[ $inc == "$w" ]] && ok=1
                done
            fi
            if [ $ok = 0 ]; then
                echo "# $f includes $inc, which $dir may not"
                bad=$((bad + 1))
            fi
        done < <(grep -E '^[ \t]*#[ \t]*include[ \t]*["<]' "$f")
    done
    seen+=" $dir "
}

# folder            may include, besides itself, standard C and POSIX
may kernels         cblas.h cpuid.h kernels/ref kernels/avx2 kernels/avx512
may kernels/ref     kernels
may kernels/avx2    kernels immintrin.h
may kernels/avx512  kernels immintrin.h
may src/base
may src/tensor      base
may src/cfg         base libconfig.h
may src/comm        base tensor mpi.h
may src/io          base tensor comm mpi.h hdf5.h hdf5_hl.h jansson.h zlib.h openssl/evp.h
may src/text        base cfg io pcre2.h utf8proc.h
may src/attn        base cfg tensor kernels
may src/model       base cfg tensor comm io attn kernels
may src/task        base cfg comm io text model
may src/sched       base cfg comm io text attn model task kernels
may src/train       base cfg tensor comm io text attn model task kernels
may src/report      base io
may src/bench       base comm io attn model kernels
may src/app         base cfg tensor comm io text attn model task train sched report bench kernels build_info.h

# Libraries behind our own headers: these four in .c files only.
for h in hdf5.h libconfig.h cblas.h jansson.h; do
    if grep -lE "include <$h>" src/*/*.h kernels/*.h kernels/*/*.h 2>/dev/null | grep .; then
        echo "# $h stands in a header above; it belongs in .c files"
        bad=$((bad + 1))
    fi
done
# A folder that is not in the table fails.
for d in kernels kernels/*/ src/*/; do
    d=${d%/}
    [[ $seen == *" $d "* ]] || { echo "# $d is not in the table of tests/layers.sh"; bad=$((bad + 1)); }
done
# What is committed at the top is fixed, so that nothing is added there by mistake.
for f in $(git ls-files 2>/dev/null | cut -d/ -f1 | sort -u); do
    case $f in
    Makefile | src | kernels | jobs | configs | slurm | data | tests | README.md | LICENSE | .*) ;;
    *) echo "# $f is committed and no part of the project: git rm $f"; bad=$((bad + 1)) ;;
    esac
done
if [ $bad = 0 ] && [ $files -gt 0 ]; then
    echo "ok 1 - the layers hold ($files files)"; echo "1 passed, 0 failed"; exit 0
fi
echo "not ok 1 - the layers hold"; echo "0 passed, 1 failed"; exit 1
