/* What the files of the stall sampler's thread share. */

#ifndef OPENRTC_STALL_THREAD_H
#define OPENRTC_STALL_THREAD_H

#include "stall.h"
#include <pthread.h>

#define MAX_LABEL 4096

/* What a thread has used by one moment, in seconds. */
typedef struct {
    double at;             /* clock reading */
    double ran_s, delay_s; /* its processor time and its run delay so far */
} ThreadUsage;

/* What is known of the run delay of a loop's thread in what holds the loop. */
typedef struct {
    double since;       /* clock reading: when that began; NaN: nothing holds it */
    ThreadUsage before; /* at the last look before that, or at the first one since */
    ThreadUsage latest; /* at the latest look */
    double slept_s;     /* since it began, or since `before`, until the latest look that found the thread asleep */
} RunDelay;

/* A loop that the thread looks at. */
struct Watched {
    Watched *next;
    Sampler *sampler; /* NULL: no longer watched; the thread frees this */
    uintptr_t interpreter, gil, account_type;
    double limit; /* seconds: the threshold */
    char *folders;
    OwnFile log; /* the stall log */
    BoxSection box;
    double recorded_at; /* of the last record */
    int recorded_held, recorded_quiet;
    int tries; /* looks since then that saw no stack */
    RunDelay run_delay;
    double looked_at, wait; /* of the last look, and of the watchdog's wait for the GIL then */
    KeptStacks *kept;
    double kept_in; /* the wait in which a stack was kept last */
    int in_use; /* whether the thread uses the files, without the lock */
    int lent; /* whether the detector is reading `kept` */
};

/* What a look has found. Clock readings are in seconds. */
typedef struct {
    double now, since; /* since: when what holds the loop began; NaN: nothing does */
    const char *state;
    int keeper;
    uintptr_t holder; /* the account's address; 0: none */
    double run_delay_s; /* since `since`, if that is why the loop is held; else NaN */
    int marks;        /* how often this was put into the stall log; 0: it is not due */
    char label[MAX_LABEL]; /* the session's id, a zero byte, and its members in JSON; "": it is no session's */
} Stall;

/* What the threads know of each other. Times are readings of `monotonic_s`; infinity: never, or not now. */
typedef struct {
    pthread_mutex_t lock; /* of the list, and of the marks of samplers */
    pthread_cond_t changed;
    Watched *first;
    int started;                           /* whether the thread runs */
    double patience_s;                     /* how long the watchdog may wait for the GIL */
    volatile double tick_due;              /* of the watchdog */
    volatile double wants_gil_since;       /* the watchdog's wait for the GIL */
    uintptr_t gil;                         /* the address of the GIL's state; 0: unknown */
    volatile unsigned long switches_before; /* how often it had changed hands when that wait began */
    volatile uintptr_t holder_before;      /* the thread that had it then; 0: none had, or it is not known */
    volatile double last_wait, last_wait_ended; /* its last one that is over */
    volatile uintptr_t last_keeper;        /* the thread that alone had the GIL meanwhile; 0: it is not known */
    volatile int rests;                    /* whether the watchdog sleeps until it is woken */
} Stalls;

extern Stalls stalls;

/* --- stall_thread.c */

/* Start the thread, if it does not run. The lock is held. Return 0, or -1. */
int start_stall_thread(void);
void make_condition(void);

/* --- watched.c */

/* Release the lock, and keep the files of this loop open meanwhile. */
void unlock_to_use(Watched *watched);
void lock_again(Watched *watched);

/* Free what is no longer watched. The lock is held. */
void sweep(void);
PyObject *samples_without_gil(PyObject *module, PyObject *args);
void prepare_for_forks(void);

/* In a child of a fork: forget the parent's loops, once. Who has the GIL calls it before all else: Python code may run in
   the child before the handler that does. */
void follow_fork(void);

/* --- stall_look.c */

typedef struct {
    uintptr_t holder;
    unsigned long switches; /* how often it has changed hands */
    int locked;
} Gil;

/* Return the state of the GIL at this address; all zero if it cannot be read. */
Gil read_gil(uintptr_t at);

/* Return how often what began at `since` was reported, this time included, if a report is due now; else 0. */
int next_mark(Sampler *sampler, double since, double now);

/* Look at one loop. kept: whether the GIL is kept from the watchdog. The lock is held; it is released while a stack is read, and while what was seen is written. */
void look(Watched *watched, double now, double wait, int kept);

/* --- run_delay.c */

/* Return the seconds since `since`, when what holds the loop began (NaN: nothing does), in which the thread of this number
   (threading.get_native_id()) was ready and the host did not run it. NaN: they are not why the loop is held, or not known.
   They are, as in classification.py, if they are most of the time, and what is known of the rest is within the limit. To be
   called at each look. */
double run_delay_until(RunDelay *delay, unsigned long thread, double since, double now, double limit);

/* --- stall_report.c */

/* Find the session of an account. */
void read_label(const Watched *watched, Stall *stall);

/* Write what was found into the black box and, if that is due, into the stall log. */
void report_stall(Watched *watched, const Stall *stall, const Places *places, int in_box);

#endif
