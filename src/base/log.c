/* Lines for people. */
#include "base/log.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "base/timer.h"

static int log_rank;
static enum log_level log_min = LOG_INFO;
static bool bar_open; /* a live bar stands on the current line of the terminal */

void log_setup(int rank, enum log_level min)
{
    log_rank = rank;
    log_min = min;
}

void log_line(enum log_level level, const char *fmt, ...)
{
    static const char *const mark[] = {"debug: ", "", "warning: ", "error: "};
    char text[2048], who[32] = "";
    va_list ap;
    if (level < log_min || (level < LOG_WARN && log_rank != 0))
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (log_rank != 0)
        snprintf(who, sizeof who, "[rank %d] ", log_rank);
    /* One call, one write: lines of several ranks do not mix. */
    fprintf(stderr, "%s%s%s%s\n", bar_open ? "\r\033[K" : "", who, mark[level], text);
    bar_open = false;
}

void log_duration(double s, char *out, int cap)
{
    if (!(s >= 0) || isinf(s))
        snprintf(out, (size_t)cap, "?");
    else if (s < 10)
        snprintf(out, (size_t)cap, "%.1f s", s);
    else if (s < 60)
        snprintf(out, (size_t)cap, "%.0f s", s);
    else if (s < 3600)
        snprintf(out, (size_t)cap, "%dm %02ds", (int)(s / 60), (int)fmod(s, 60));
    else
        snprintf(out, (size_t)cap, "%dh %02dm", (int)(s / 3600), (int)(fmod(s, 3600) / 60));
}

void log_bytes(double b, char *out, int cap)
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int u = 0;
    for (; b >= 1024 && u < 4; u++)
        b /= 1024;
    snprintf(out, (size_t)cap, b < 10 && u ? "%.1f %s" : "%.0f %s", b, unit[u]);
}

void progress_begin(struct progress *p, const char *what, double total)
{
    double now = timer_now();
    *p = (struct progress){.what = what, .total = total, .start_s = now, .last_s = now, .live = isatty(STDERR_FILENO) == 1};
}

static void draw_bar(const struct progress *p, double share, const char *eta, const char *note)
{
    char bar[31];
    int full = (int)(share * 30);
    for (int i = 0; i < 30; i++)
        bar[i] = i < full ? '=' : i == full ? '>' : ' ';
    bar[30] = '\0';
    fprintf(stderr, "\r\033[K%s [%s] %3.0f %%  ETA %s  %s", p->what, bar, share * 100, eta, note);
    fflush(stderr);
    bar_open = true;
}

void progress_update(struct progress *p, double done, const char *note)
{
    double now = timer_now(), spent = now - p->start_s, wait = p->live ? (p->shown ? 0.2 : 2) : 60;
    char eta[32], took[32];
    if (log_rank != 0 || log_min > LOG_INFO || now - p->last_s < wait)
        return;
    double share = p->total > 0 ? fmin(fmax(done / p->total, 0), 1) : 0;
    log_duration(share > 0 ? spent * (1 - share) / share : -1, eta, sizeof eta);
    p->last_s = now;
    p->shown = true;
    if (p->live) {
        draw_bar(p, share, eta, note ? note : "");
    } else {
        log_duration(spent, took, sizeof took);
        log_info("%s: %.0f %% after %s, ETA %s %s", p->what, share * 100, took, eta, note ? note : "");
    }
}

void progress_end(struct progress *p)
{
    if (p->live && bar_open) {
        fprintf(stderr, "\r\033[K");
        fflush(stderr);
        bar_open = false;
    }
    p->shown = false;
}
