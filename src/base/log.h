/* Lines for people: levels, and progress with an ETA.
 * Only rank 0 prints below LOG_WARN; lines of other ranks carry "[rank N]". Everything goes to stderr, results to stdout. */
#ifndef AST_BASE_LOG_H
#define AST_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* min: the lowest level that is printed. */
void log_setup(int rank, enum log_level min);
void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)

/* Progress of something that may take long: a live bar on a terminal, a plain line a minute elsewhere, nothing at all
 * if it is over within two seconds. `done` and `total` are in any unit (predicted seconds, bytes, samples). */
struct progress {
    const char *what;
    double total, start_s, last_s;
    bool live, shown;
};

void progress_begin(struct progress *p, const char *what, double total);
void progress_update(struct progress *p, double done, const char *note); /* cheap: prints only when it is time */
void progress_end(struct progress *p);

/* "1h 02m", "3m 20s", "4.1 s" */
void log_duration(double s, char *out, int cap);

/* "1.5 GiB", "212 KiB" */
void log_bytes(double bytes, char *out, int cap);

#endif
