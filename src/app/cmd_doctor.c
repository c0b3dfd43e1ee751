/* asterism doctor: what this machine offers and what is wrong. */
#include <stdio.h>
#include <string.h>

#include "app/app.h"
#include "kernels/kern.h"

static int run(int argc, char **argv);

const struct app_command app_doctor = {
    .name = "doctor",
    .brief = "MPI, HDF5, BLAS, instruction sets, threads: what is wrong and how to mend it",
    .usage = "usage: asterism doctor [--isas]\n  --isas   only the names of the instruction sets this CPU runs\n",
    .run = run,
};

static int run(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--isas"))
        return app_usage(&app_doctor, "unknown option '%s'", argv[1]);
    for (int i = 0; i < kern_isa_count(); i++)
        if (kern_isa_runs(i))
            printf("%s\n", kern_isa_name(i));
    return APP_OK;
}
