/* The clock of the meter: time.perf_counter, read without a call of Python.

   On Linux, CLOCK_MONOTONIC is that clock, and reading it costs 24 ns. Where the kernel itself keeps this clock by the
   processor's time stamp counter, it has found the counter constant and the same on all processors; then the counter is
   read directly, for 9 ns, and set right by CLOCK_MONOTONIC every few milliseconds. A step reads the clock twice. */

#include "meter.h"
#include <stdio.h>
#include <string.h>

#define VALID_S 0.005        /* seconds for which ticks count on, before CLOCK_MONOTONIC sets them right */
#define LEAST_S 0.001        /* seconds from which on the length of a tick is known well enough */
#define ANCHOR_S 1.0         /* seconds over which the length of a tick is measured */
#define GOOD_SHARE 0.001     /* the part by which the length of a tick may change from one measurement to the next */
#define MAX_DISAGREEMENTS 3  /* measurements in a row that may disagree, until ticks are given up */

static PyObject *perf_counter;
static int perf_counter_is_monotonic; /* clock_gettime(CLOCK_MONOTONIC) reads the clock of time.perf_counter, faster */
static int ticks_are_good;

#ifdef CLOCK_MONOTONIC
static double monotonic(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
#endif

#if HAS_TICKS
/* Read both clocks at one moment: again, if the thread was interrupted in between. */
static double monotonic_at(uint64_t *ticks)
{
    double best_s = 0.0;
    uint64_t best = UINT64_MAX;
    *ticks = 0;
    for (int tries = 0; tries < 4; tries++) {
        uint64_t before = READ_TICKS();
        double now = monotonic();
        uint64_t took = READ_TICKS() - before;
        if (took < best) {
            best = took;
            best_s = now;
            *ticks = before + took / 2;
        }
        if (took < 2000) /* under a microsecond on any processor */
            break;
    }
    return best_s;
}

/* Set the ledger's ticks right, and return the time in seconds. */
static double synchronise(Ledger *ledger)
{
    uint64_t ticks;
    double now = monotonic_at(&ticks);
    double elapsed = now - ledger->anchor_s;

    if (ledger->anchor_at == 0 || ticks <= ledger->anchor_at || elapsed > 60.0 * ANCHOR_S) {
        ledger->anchor_at = ticks; /* new, or long asleep: the machine may have been suspended */
        ledger->anchor_s = now;
        ledger->ticks_valid = 0;
        return now;
    }
    if (elapsed < LEAST_S)
        return now;
    double tick_s = elapsed / (double)(ticks - ledger->anchor_at);
    if (ledger->tick_s != 0.0 && fabs(tick_s / ledger->tick_s - 1.0) > GOOD_SHARE) {
        ledger->disagreements++;
        ledger->anchor_at = ledger->disagreements < MAX_DISAGREEMENTS ? ticks : 0;
        ledger->anchor_s = now;
        ledger->tick_s = 0.0;
        ledger->ticks_valid = 0;
        return now;
    }
    if (elapsed > ANCHOR_S) {
        ledger->anchor_at = ticks;
        ledger->anchor_s = now;
        ledger->disagreements = 0;
    }
    ledger->tick_s = tick_s;
    ledger->ticks_at = ticks;
    ledger->ticks_s = now;
    ledger->ticks_valid = (uint64_t)(VALID_S / tick_s);
    return now;
}
#endif

double read_clock_slowly(Ledger *ledger)
{
#ifdef CLOCK_MONOTONIC
    if (perf_counter_is_monotonic && ledger->clock == perf_counter) {
        ledger->clock_in_c = 1;
#if HAS_TICKS
        if (ticks_are_good && ledger->disagreements < MAX_DISAGREEMENTS)
            return synchronise(ledger);
#endif
        return monotonic();
    }
#endif
    ledger->clock_in_c = 0;
    PyObject *now = PyObject_CallNoArgs(ledger->clock);
    double seconds = now != NULL ? PyFloat_AsDouble(now) : -1.0;
    Py_XDECREF(now);
    return seconds;
}

/* Return whether the kernel keeps its own clock by the processor's counter. */
static int kernel_uses_ticks(void)
{
    char source[16] = "";
#if HAS_TICKS
    FILE *file = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "r");
    if (file != NULL) {
        if (fgets(source, sizeof source, file) == NULL)
            source[0] = '\0';
        fclose(file);
    }
#endif
    return strcmp(source, "tsc\n") == 0;
}

static PyObject *ticks(PyObject *module, PyObject *wanted)
{
    int before = ticks_are_good;
    if (wanted != Py_None) {
        int on = PyObject_IsTrue(wanted);
        if (on < 0)
            return NULL;
        ticks_are_good = on && kernel_uses_ticks();
    }
    return PyBool_FromLong(before);
}

static PyObject *now(PyObject *module, PyObject *ledger)
{
    if (!PyObject_TypeCheck(ledger, ledger_type))
        return PyErr_Format(PyExc_TypeError, "now() takes a ledger");
    double seconds = read_clock((Ledger *)ledger);
    return seconds == -1.0 && PyErr_Occurred() ? NULL : PyFloat_FromDouble(seconds);
}

static PyMethodDef functions[] = {
    {"now", now, METH_O, "Return the time by the clock of a ledger, in seconds, as its steps read it."},
    {"ticks", ticks, METH_O, "Return whether ledgers read the processor's counter; then set it, if not None."},
    {NULL},
};

/* Find out which clock time.perf_counter reads. Return 0, or -1 with an error set. */
int find_clock(PyObject *module)
{
    PyObject *time = PyImport_ImportModule("time");
    if (time == NULL)
        return -1;
    perf_counter = PyObject_GetAttrString(time, "perf_counter");
    PyObject *info = PyObject_CallMethod(time, "get_clock_info", "s", "perf_counter");
    PyObject *how = info != NULL ? PyObject_GetAttrString(info, "implementation") : NULL;
    if (how != NULL)
        perf_counter_is_monotonic = PyUnicode_CompareWithASCIIString(how, "clock_gettime(CLOCK_MONOTONIC)") == 0;
    Py_XDECREF(how);
    Py_XDECREF(info);
    Py_DECREF(time);
    ticks_are_good = perf_counter_is_monotonic && kernel_uses_ticks();
    return perf_counter != NULL && how != NULL ? PyModule_AddFunctions(module, functions) : -1;
}
