/* A watchdog around collectives: a rank that waits for one that died would wait for ever. Ends this process with a sentence;
 * what was finished is on disk and the same command goes on. */
#ifndef AST_SCHED_WATCH_H
#define AST_SCHED_WATCH_H

/* In `seconds` from now, unless watch_end comes first: "asterism: WHAT takes too long ...", exit code 75. what must stay. */
void watch_begin(unsigned seconds, const char *what);
void watch_end(void);

#endif
