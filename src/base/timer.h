/* Wall clock and named phases. */
#ifndef AST_BASE_TIMER_H
#define AST_BASE_TIMER_H

#include <stddef.h>

enum timer_phase {
    TIMER_LOAD,   /* weights and datasets */
    TIMER_LINEAR, /* projections and MLP (first thread), and what is done within: activation; norms of few rows */
    TIMER_ATTN,   /* attention, choosing keys included */
    TIMER_SELECT, /* of which: choosing keys (a part of TIMER_ATTN) */
    TIMER_HEAD,   /* vocabulary projection and loss */
    TIMER_OTHER,  /* norms, rotary embedding, copies */
    TIMER_COMM,   /* inside MPI, within a group */
    TIMER_IO,     /* durable files */
    TIMER_WAIT,   /* waiting for work or for other ranks */
    TIMER_PHASES
};

struct timer {
    double s[TIMER_PHASES]; /* seconds */
};

double timer_now(void);                             /* seconds, monotonic */
double timer_wall(void);                            /* seconds since 1970, UTC */
const char *timer_phase_name(enum timer_phase p);   /* "load", "linear", ... */
void timer_iso(double wall, char *out, size_t cap); /* "2026-11-25T04:46:00Z"; cap >= 21 */

#endif
