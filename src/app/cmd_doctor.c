/* asterism doctor: what this machine offers, what is wrong, how to mend it. The parts stand in doctor_*.c. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/app.h"
#include "app/doctor.h"
#include "kernels/kern.h"

static int run(int argc, char **argv);

const struct app_command app_doctor = {
    .name = "doctor",
    .brief = "MPI, HDF5, BLAS, instruction sets, threads: what is wrong and how to mend it",
    .usage =
        "usage: asterism doctor [--folder DIR] [--quick]\n"
        "       asterism doctor --isas\n\n"
        "A line for each thing that matters: ok, WARN (it works, but slowly or not everywhere) or FAIL, with the mend below.\n\n"
        "  --folder DIR   where results will be written: files are tried there (default: $TMPDIR or /tmp)\n"
        "  --quick        starts no other programs: no mpirun, no Slurm commands\n"
        "  --isas         only the names of the instruction sets this CPU runs, simplest first\n\n"
        "exit codes: 0 nothing failed, 1 something did\n",
    .run = run,
};

enum { WIDTH = 100, INDENT = 18 };

/* Words within WIDTH columns; the first stands at column indent, and later lines begin there. */
static void put_wrapped(const char *text, int indent)
{
    for (int column = indent; *text; text += strspn(text, " ")) {
        int n = (int)strcspn(text, " ");
        if (column > indent && column + 1 + n > WIDTH) {
            printf("\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            putchar(' ');
            column++;
        }
        printf("%.*s", n, text);
        column += n;
        text += n;
    }
    putchar('\n');
}

void doctor_say(struct doctor *d, const struct doctor_line *l, const char *fmt, ...)
{
    static const char *const word[DOCTOR_STATES] = {"ok", "WARN", "FAIL"};
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    d->n[l->state]++;
    printf("%-4s  %-10s  ", word[l->state], l->subject);
    put_wrapped(text, INDENT);
    if (l->mend) {
        printf("%*s> ", INDENT, "");
        put_wrapped(l->mend, INDENT + 2);
    }
    fflush(stdout);
}

static int print_isas(void)
{
    for (int i = 0; i < kern_isa_count(); i++)
        if (kern_isa_runs(i))
            printf("%s\n", kern_isa_name(i));
    return APP_OK;
}

static int run(int argc, char **argv)
{
    struct doctor d = {.folder = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp"};
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--isas"))
            return print_isas();
        if (!strcmp(argv[i], "--ping") && i + 1 < argc)
            return doctor_ping(argc, argv, argv[i + 1]);
        if (!strcmp(argv[i], "--quick"))
            d.quick = true;
        else if (!strcmp(argv[i], "--folder") && i + 1 < argc)
            d.folder = argv[++i];
        else
            return app_usage(&app_doctor, "unknown option '%s'", argv[i]);
    }
    doctor_cpu(&d);
    doctor_threads(&d);
    doctor_memory(&d);
    doctor_files(&d);
    doctor_mpi(&d);
    doctor_slurm(&d);
    if (d.n[DOCTOR_FAIL])
        printf("\n%d of %d checks failed, %d warnings\n", d.n[DOCTOR_FAIL], d.n[0] + d.n[1] + d.n[2], d.n[DOCTOR_WARN]);
    else if (d.n[DOCTOR_WARN])
        printf("\nAsterism runs here; %d warning%s\n", d.n[DOCTOR_WARN], d.n[DOCTOR_WARN] == 1 ? "" : "s");
    else
        printf("\nAll is well.\n");
    return d.n[DOCTOR_FAIL] ? APP_ERROR : APP_OK;
}
