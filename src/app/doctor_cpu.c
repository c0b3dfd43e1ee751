/* The CPU: instruction sets, the kernel table chosen for them, BLAS. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/doctor.h"
#include "kernels/blas.h"
#include "kernels/kern.h"
#include "kernels/linear.h"

/* "model name" of the first CPU; "" where /proc does not say. */
static void cpu_model(char *out, size_t cap)
{
    char line[512];
    FILE *f = fopen("/proc/cpuinfo", "r");
    out[0] = '\0';
    while (f && !out[0] && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (colon && !strncmp(line, "model name", 10))
            snprintf(out, cap, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
    }
    if (f)
        fclose(f);
}

static void kernels(struct doctor *d)
{
    struct kern_table chosen = {0};
    const char *forced = getenv("AST_ISA");
    char model[256], runs[256] = "";
    int best = kern_best(), rc = kern_select(&chosen, NULL);
    const char *by = kern_pairs_by(&chosen);
    for (int i = 0; i < kern_isa_count(); i++)
        if (kern_isa_runs(i))
            snprintf(runs + strlen(runs), sizeof runs - strlen(runs), "%s%s", runs[0] ? ", " : "", kern_isa_name(i));
    cpu_model(model, sizeof model);
    doctor_ok(d, "CPU", "%s; it runs the kernels of: %s", model[0] ? model : "of unknown make", runs);
    if (rc) {
        doctor_fail(d, "kernels", "unset AST_ISA, or set it to one of those above", "AST_ISA=%s: %s", forced,
                    rc == -1 ? "there is no such instruction set" : "this CPU cannot run it");
        return;
    }
    if (forced && forced[0] && strcmp(chosen.isa, kern_isa_name(best)))
        doctor_warn(d, "kernels", "unset AST_ISA", "AST_ISA=%s forces slower kernels than %s", forced, kern_isa_name(best));
    else if (best == 0)
        doctor_warn(d, "kernels", NULL, "only the plain reference kernels run here: correct, but many times slower");
    else
        doctor_ok(d, "kernels", "%s%s%s%s", chosen.isa, by ? ", with " : "",
                  by                                                       ? by
                  : best + 1 < kern_isa_count() && kern_isa_runs(best + 1) ? ": multiply-adds are faster here than products of bf16"
                                                                           : "",
                  forced && forced[0] ? " (forced by AST_ISA)" : "");
}

/* OpenBLAS chooses a core type at start; virtual machines that hide the model make it choose an ancient one. */
static void blas(struct doctor *d)
{
    const char *info = blas_info(), *type = getenv("OPENBLAS_CORETYPE");
    const char *better = kern_blas_core();
    char mend[64];
    if (strstr(info, "pthreads"))
        doctor_warn(d, "BLAS",
                    "install libopenblas0-openmp and build again (the Makefile finds it), or set "
                    "LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu/openblas-openmp",
                    "%s: its threads and OpenMP's fight for the cores; up to half of the speed is lost with more than one thread",
                    info);
    else if (strstr(info, "sequential"))
        doctor_warn(d, "BLAS", "install libopenblas0-openmp and build again", "%s: it uses one thread of a rank only", info);
    else if (better) {
        snprintf(mend, sizeof mend, "export OPENBLAS_CORETYPE=%s", better);
        doctor_warn(d, "BLAS", mend, "%s: it took this CPU for an old one and uses none of its vector units", info);
    } else
        doctor_ok(d, "BLAS", "%s%s%s", info, type ? ", OPENBLAS_CORETYPE=" : "", type ? type : "");
}

void doctor_cpu(struct doctor *d)
{
    kernels(d);
    blas(d);
}
