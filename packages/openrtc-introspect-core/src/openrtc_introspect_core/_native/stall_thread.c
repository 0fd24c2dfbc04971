/* The stall sampler: a thread that looks at what holds the loops while the watchdog waits for the GIL.

   - The watchdog is the one Python thread that takes the GIL at known moments, and says so.
   - This thread sleeps until the watchdog's next tick is late by more than two switch intervals, then looks at each loop
     (stall_look.c), as long as that lasts. While the watchdog rests, it sleeps too.
   - What it sees it keeps for the detector (kept.c), writes into the black box and into the stall log (stall_report.c). */

#ifdef __linux__
#define _GNU_SOURCE
#include <sys/prctl.h>
#endif
#include "stall_thread.h"
#include <signal.h>

#define CLOSE_LOOK_S 0.005   /* seconds between the looks of a stall */
#define CLOSE_LOOKS 24       /* of one wait for the GIL; later ones come more rarely */
#define RARE_LOOK_S 0.045
#define MIN_PATIENCE_S 0.010 /* seconds for which the watchdog has waited for the GIL before anything is said of it */

Stalls stalls = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .patience_s = MIN_PATIENCE_S,
    .tick_due = INFINITY,
    .wants_gil_since = INFINITY,
    .last_wait = INFINITY,
    .rests = 1,
};
static volatile double used_s; /* CPU seconds of this thread and its predecessors */
static int looks;              /* in this wait of the watchdog */

double monotonic_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* --- what the watchdog says of itself --------------------------------------------------------------------------------- */

void watchdog_sleeps(double due)
{
    stalls.tick_due = due;
}

static void wake_this_thread(void)
{
    if (!stalls.rests)
        return;
    follow_fork();
    pthread_mutex_lock(&stalls.lock);
    stalls.rests = 0;
    pthread_cond_signal(&stalls.changed);
    pthread_mutex_unlock(&stalls.lock);
}

void watchdog_wants_gil(void)
{
    Gil gil = read_gil(stalls.gil);
    stalls.switches_before = gil.switches;
    stalls.holder_before = gil.locked == 1 ? gil.holder : 0;
    stalls.wants_gil_since = monotonic_s();
    wake_this_thread();
}

long gil_switches(void)
{
    return stalls.gil != 0 ? (long)(read_gil(stalls.gil).switches - stalls.switches_before) : -1;
}

double watchdog_has_gil(void)
{
    stalls.last_keeper = gil_switches() == 1 ? stalls.holder_before : 0; /* from that one to this one */
    stalls.last_wait = stalls.wants_gil_since;
    stalls.last_wait_ended = monotonic_s();
    stalls.wants_gil_since = stalls.tick_due = INFINITY;
    return fmax(0.0, stalls.last_wait_ended - stalls.last_wait);
}

void watchdog_rests(void)
{
    stalls.rests = 1;
}

/* --- the thread --------------------------------------------------------------------------------------------------------- */

/* Record of each loop that it waits, unless its last record says so. */
static void record_rest(void)
{
    static const Places nowhere;
    static Stall stall = {.since = NAN, .state = "quiet"};
    for (Watched *watched = stalls.first; watched != NULL; watched = watched->next) {
        if (watched->sampler == NULL || watched->recorded_quiet)
            continue;
        stall.now = watched->recorded_at = monotonic_s();
        watched->recorded_held = 0;
        watched->recorded_quiet = 1;
        unlock_to_use(watched);
        report_stall(watched, &stall, &nowhere, 1);
        lock_again(watched);
    }
}

/* Find out how long a thread of Python may keep the GIL while another wants it: the host may change that. */
static void find_patience(uintptr_t gil)
{
    unsigned long interval_us = 0;
    if (gil != 0 && copy_memory(&interval_us, gil + (uintptr_t)layout.gil_interval, sizeof interval_us) == 0)
        stalls.patience_s = fmax(MIN_PATIENCE_S, 2e-6 * (double)interval_us);
}

/* Return since when the GIL has not changed hands while the watchdog has waited for it. While threads of Python code pass
   it around, the watchdog waits for its turn, and nothing is kept. */
static double kept_since(uintptr_t gil, double wait, double now)
{
    static double in_wait = INFINITY, since = INFINITY;
    static unsigned long last;
    Gil state = read_gil(gil);
    if (gil == 0 || isinf(wait))
        return wait;
    if (in_wait != wait)
        since = state.switches == stalls.switches_before ? wait : now;
    else if (state.switches != last)
        since = now;
    in_wait = wait;
    last = state.switches;
    return since;
}

static void look_at_all(void)
{
    double now = monotonic_s(), wait = stalls.wants_gil_since;
    uintptr_t gil = stalls.first != NULL ? stalls.first->gil : 0;
    find_patience(gil);
    int kept = now - kept_since(gil, wait, now) >= stalls.patience_s;
    looks = kept ? looks + 1 : 0;
    for (Watched *watched = stalls.first; watched != NULL; watched = watched->next) /* only this thread removes any */
        if (watched->sampler != NULL && watched->sampler->awake)
            look(watched, now, wait, kept);
}

static double next_look(double now)
{
    double wait = stalls.wants_gil_since, tick = stalls.tick_due, patience = stalls.patience_s;
    if (!isinf(wait))
        return now - wait < patience ? wait + patience : now + (looks < CLOSE_LOOKS ? CLOSE_LOOK_S : RARE_LOOK_S);
    return isinf(tick) || tick + patience <= now ? now + RARE_LOOK_S : tick + patience;
}

static void sleep_until(double when)
{
#ifdef __APPLE__
    when = fmax(0.0, when - monotonic_s()); /* there, such a wait has no clock but that of the day */
#endif
    struct timespec at = {.tv_sec = (time_t)when, .tv_nsec = (long)(1e9 * (when - floor(when)))};
#ifdef __APPLE__
    pthread_cond_timedwait_relative_np(&stalls.changed, &stalls.lock, &at);
#else
    pthread_cond_timedwait(&stalls.changed, &stalls.lock, &at);
#endif
}

static void *run(void *nothing)
{
    struct timespec at;
    double before_s = used_s;
#ifdef __linux__
    prctl(PR_SET_NAME, "openrtc-stalls"); /* what `top -H` shows */
#endif
    pthread_mutex_lock(&stalls.lock);
    for (sweep(); stalls.first != NULL; sweep()) {
        if (stalls.rests) {
            record_rest();
            if (stalls.rests && stalls.first != NULL)
                pthread_cond_wait(&stalls.changed, &stalls.lock);
        } else {
            sleep_until(next_look(monotonic_s()));
            if (!stalls.rests)
                look_at_all();
        }
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at);
        used_s = before_s + (double)at.tv_sec + 1e-9 * (double)at.tv_nsec;
    }
    stalls.started = 0;
    pthread_mutex_unlock(&stalls.lock);
    return NULL;
}

int start_stall_thread(void)
{
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;
    if (stalls.started)
        return 0;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 512 * 1024);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* the host's signals are none of this thread's */
    stalls.started = pthread_create(&thread, &attributes, run, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return stalls.started ? 0 : -1;
}

void make_condition(void)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
#ifndef __APPLE__
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
#endif
    pthread_cond_init(&stalls.changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

/* --- for Python, with the GIL ---------------------------------------------------------------------------------------- */

static PyObject *stall_thread_cpu_s(PyObject *module, PyObject *none)
{
    return PyFloat_FromDouble(used_s);
}

static PyObject *watchdog_woken(PyObject *module, PyObject *none)
{
    if (stalls.rests)
        watchdog_wants_gil();
    Py_RETURN_NONE;
}

static PyObject *watchdog_awake(PyObject *module, PyObject *none)
{
    watchdog_has_gil();
    wake_this_thread();
    Py_RETURN_NONE;
}

static PyObject *gil_wanted_s(PyObject *module, PyObject *clock_reading)
{
    double since = PyFloat_AsDouble(clock_reading);
    if (PyErr_Occurred())
        return NULL;
    double now_s = monotonic_s() - fmax(since, stalls.wants_gil_since);
    double before_s = stalls.last_wait_ended - fmax(since, stalls.last_wait);
    return PyFloat_FromDouble(fmax(0.0, now_s) + fmax(0.0, before_s));
}

static PyObject *had_gil_alone(PyObject *module, PyObject *args)
{
    unsigned long long id;
    int under_way;
    if (!PyArg_ParseTuple(args, "Kp", &id, &under_way))
        return NULL;
    int waits = !isinf(stalls.wants_gil_since);
    uintptr_t keeper = !under_way ? stalls.last_keeper : waits && gil_switches() == 0 ? stalls.holder_before : 0;
    return PyBool_FromLong(keeper != 0 && keeper == find_thread((uintptr_t)PyInterpreterState_Get(), (unsigned long)id));
}

static PyObject *watchdog_resting(PyObject *module, PyObject *none)
{
    watchdog_rests();
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"samples_without_gil", samples_without_gil, METH_VARARGS,
     "Return the stacks that the stall sampler saw within a span: (stalls.first, last, keeper, places)."},
    {"stall_thread_cpu_s", stall_thread_cpu_s, METH_NOARGS, "Return the CPU seconds that the stall sampler has used."},
    {"watchdog_woken", watchdog_woken, METH_NOARGS, "Take note that the watchdog was woken, and wants the GIL from now on."},
    {"watchdog_awake", watchdog_awake, METH_NOARGS, "Take note that the watchdog has the GIL."},
    {"watchdog_resting", watchdog_resting, METH_NOARGS, "Take note that the watchdog sleeps until it is woken."},
    {"gil_wanted_s", gil_wanted_s, METH_O,
     "Return for how many seconds since a clock reading the watchdog waited for the GIL, in its last wait and in this one."},
    {"had_gil_alone", had_gil_alone, METH_VARARGS,
     "Return whether the thread of this id alone had the GIL while the watchdog waited for it: in the wait under way, or in "
     "the last one that is over."},
    {NULL},
};

int add_stall_thread(PyObject *module)
{
    make_condition();
    prepare_for_forks();
    return PyModule_AddFunctions(module, functions);
}
