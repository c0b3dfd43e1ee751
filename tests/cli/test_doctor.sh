#!/bin/bash
# asterism doctor: what it finds on this machine, and what it says when the environment is made worse on purpose.
passed=0 failed=0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
check() # NAME WANT GOT
{
    if [ "$2" = "$3" ]; then
        passed=$((passed + 1)); echo "ok $((passed + failed)) - $1"
    else
        failed=$((failed + 1)); echo "not ok $((passed + failed)) - $1"; echo "# want: $2"; echo "# got:  $3"
    fi
}
has() # NAME PART TEXT
{
    [[ $3 == *"$2"* ]] && check "$1" yes yes || check "$1" "... $2 ..." "$3"
}
# Lines are joined, so that the wrapping does not matter.
doctor() { "$ASTERISM" doctor --folder "$dir" "$@" >"$dir/log" 2>&1 </dev/null; rc=$?; said=$(tr -s ' \n' ' ' <"$dir/log"); }

check "--isas names the plainest first" ref "$("$ASTERISM" doctor --isas | head -n 1)"
doctor
check "nothing fails here" 0 $rc
for subject in CPU kernels BLAS cores threads memory HDF5 files locale mpirun Slurm; do
    check "a line about $subject" 1 "$(grep -cE "^(ok|WARN) +$subject " "$dir/log" | sed 's/^[2-9]$/1/')"
done
has "two ranks are really started" "2 ranks started" "$said"
has "and write HDF5 together" "one HDF5 file written by both" "$said"
check "nothing is left in the folder" log "$(ls "$dir")"

AST_ISA=mmx doctor --quick
check "an unknown instruction set fails" 1 $rc
has "and is named" "FAIL kernels AST_ISA=mmx" "$said"
check "the others are listed all the same" 0 "$(AST_ISA=mmx "$ASTERISM" doctor --isas >/dev/null; echo $?)"
AST_ISA=ref doctor --quick
isas=$("$ASTERISM" doctor --isas | wc -l)
[ "$isas" = 1 ] || has "a forced slow one warns" "WARN kernels AST_ISA=ref" "$said"
if [ "$isas" != 1 ]; then # a CPU that OpenBLAS may not know gets fitting products, unless told otherwise
    OPENBLAS_CORETYPE=Prescott doctor --quick
    has "slow matrix products warn" "WARN BLAS" "$said"
    has "with a mend" "export OPENBLAS_CORETYPE=" "$said"
    check "unasked, they are fast ones" 0 "$(env -u OPENBLAS_CORETYPE "$ASTERISM" doctor --quick --folder "$dir" 2>&1 | grep -cE 'Prescott|Nehalem|Core2')"
fi
OMP_WAIT_POLICY=active doctor --quick
has "spinning threads warn" "WARN threads OMP_WAIT_POLICY=active" "$said"
spin() { env -u OMP_WAIT_POLICY -u GOMP_SPINCOUNT -u OMPI_COMM_WORLD_LOCAL_SIZE MPI_LOCALNRANKS="$1" "$ASTERISM" doctor --quick --folder "$dir" 2>&1 | grep -o 'SPINCOUNT=[0-9]*'; }
check "ranks that share cores hardly spin" SPINCOUNT=1000 "$(spin 100000)"
[ "$(nproc)" = 1 ] || check "threads with cores of their own wait a little" SPINCOUNT=5000 "$(spin 1)"
OMP_NUM_THREADS=5000 doctor --quick
has "too many threads warn" "WARN threads OMP_NUM_THREADS=5000, but only" "$said"
OMP_NUM_THREADS=many doctor --quick
has "threads that are no number warn" "OMP_NUM_THREADS=many is not a number" "$said"
OMP_PROC_BIND=close doctor --quick
has "binding warns" "OMP_PROC_BIND=close" "$said"
check "warnings alone are no failure" 0 $rc
OMPI_MCA_btl=vader doctor --quick
check "a transport without self fails" 1 $rc
has "and is named" "OMPI_MCA_btl=vader lacks self" "$said"
if (ulimit -v 4000000; "$ASTERISM" doctor --isas) >/dev/null 2>&1; then # not with address sanitizer
    has "a limit of memory warns" "WARN memory a process may map" "$(ulimit -v 4000000; doctor --quick; echo "$said")"
fi

"$ASTERISM" doctor --quick --folder /proc/none >"$dir/log" 2>&1
check "a folder that cannot be written fails" 1 $?
has "with its reason and a mend" "FAIL files /proc/none: " "$(tr -s ' \n' ' ' <"$dir/log")"

# other mpiruns
mkdir "$dir/bin"
fake() { printf '#!/bin/bash\nif [ "$1" = --version ]; then echo "%s"; exit 0; fi\n%s\n' "$1" "$2" >"$dir/bin/mpirun"; chmod +x "$dir/bin/mpirun"; }
version=$(mpirun --version | head -n 1)
fake "$version" 'echo "[x:1] noise"; echo "There are no slots here."; exit 5'
PATH=$dir/bin:$PATH doctor
check "ranks that do not start fail" 1 $rc
has "with what mpirun said" "two ranks cannot be started: exit code 5: There are no slots here." "$said"
fake "mpirun (Open MPI) 3.0.1" "exec $(command -v mpirun) \"\$@\""
PATH=$dir/bin:$PATH doctor
has "an mpirun of another version warns" "is of version 3.0.1" "$said"
fake "$version" "[ -n \"\$OMPI_MCA_hwloc_base_binding_policy\" ] && [ \"\$OMPI_MCA_pml\" = ob1 ] || exit 9; exec $(command -v mpirun) \"\$@\""
env -u OMPI_MCA_pml PATH="$dir/bin:$PATH" "$ASTERISM" doctor --folder "$dir" >"$dir/log" 2>&1
has "an environment that launch.sh mends is told apart" "but do with that of slurm/launch.sh" "$(tr -s ' \n' ' ' <"$dir/log")"
mkdir "$dir/empty"
ASTERISM=$(readlink -f "$ASTERISM")
PATH=$dir/empty "$ASTERISM" doctor --folder "$dir" >"$dir/log" 2>&1
check "without mpirun it works as one process" 0 $?
has "and says so" "there is no mpirun in PATH" "$(cat "$dir/log")"
"$ASTERISM" doctor --quik >/dev/null 2>&1
check "an unknown option is a usage error" 2 $?
echo "1..$((passed + failed))"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
