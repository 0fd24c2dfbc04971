/* Ticks of the watchdog that find nothing held, see watchdog.py, stall_sampler.py and thread_usage.py. Between two ticks
   the caches have gone cold: in Python, a tick costs 60 microseconds, of which waking takes 12.

   Each tick takes the GIL, as those in Python do: that it comes late is how a tick knows that the GIL was kept. */

#ifdef __linux__
#define _GNU_SOURCE /* for RUSAGE_THREAD */
#endif
#include "stall.h"
#include <stdlib.h>
#ifndef _WIN32
#include <sys/resource.h>
#endif
#include <unistd.h>

#define MIN_HELD_S 0.004   /* seconds, as in stall_sampler.py */
#define PARK_AFTER_S 0.2   /* seconds, as in stall_sampler.py */
#define STARVED_S 0.0075   /* seconds, as in stall_samples.py */
#define FREE_S 0.002       /* seconds, as MAX_FREE_GIL_WAIT_S in stall_samples.py */
#define SWITCH_S 0.005     /* seconds, as the next in gil_wait.py */
#define OTHERS_HAD_IT_S 0.003

/* Return the run delay of a thread in seconds, from the descriptor of its schedstat file; -1 if there is none. */
static double run_delay_of(int schedstat)
{
    char text[128];
    ssize_t length = schedstat < 0 ? -1 : pread(schedstat, text, sizeof text - 1, 0);
    if (length <= 0)
        return -1.0;
    text[length] = '\0';
    char *second, *end;
    strtoull(text, &second, 10);
    unsigned long long nanoseconds = strtoull(second, &end, 10);
    return end != second ? 1e-9 * (double)nanoseconds : -1.0;
}

static PyObject *or_none(double seconds)
{
    return seconds < 0.0 ? Py_NewRef(Py_None) : PyFloat_FromDouble(seconds);
}

static double seconds_of(clockid_t clock)
{
    struct timespec now;
    return clock_gettime(clock, &now) == 0 ? (double)now.tv_sec + 1e-9 * (double)now.tv_nsec : -1.0;
}

static PyObject *run_delay(PyObject *module, PyObject *schedstat)
{
    long descriptor = PyLong_AsLong(schedstat);
    if (descriptor == -1 && PyErr_Occurred())
        return NULL;
    return or_none(run_delay_of((int)descriptor));
}

/* --- the fields of a sampler of one loop ------------------------------------------------------------------------------ */

PyTypeObject *sampler_type;
static PyObject *name_cpu_clock, *name_schedstat;
static volatile int interrupted; /* whether there may be other work than the ticks under way */

static int is_held(Sampler *self, double now)
{
    Ledger *ledger = self->ledger;
    PyObject *holder = ledger->holder;
    int holds = !IS_NONE(holder) && holder != self->parked && holder != ledger->unsampled;
    return (holds && now - step_since(ledger) >= MIN_HELD_S) || now - self->iterations->busy_since >= MIN_HELD_S;
}

static int may_park(Sampler *self, double now)
{
    Iterations *iterations = self->iterations;
    return isnan(iterations->busy_since) && now - iterations->waiting_since > PARK_AFTER_S;
}

/* Return an integer attribute, or `missing` if it is None or cannot be read. */
static long integer_of(PyObject *object, PyObject *name, long missing)
{
    PyObject *found = PyObject_GetAttr(object, name);
    long value = found != NULL && found != Py_None ? PyLong_AsLong(found) : missing;
    Py_XDECREF(found);
    if (PyErr_Occurred()) {
        PyErr_Clear();
        return missing;
    }
    return value;
}

static double or_nan(double seconds)
{
    return seconds < 0.0 ? NAN : seconds;
}

static void remember(Sampler *self, double now)
{
    long clock = integer_of(self->usage, name_cpu_clock, 0); /* 0 is the clock of the day: no thread's */
    self->when = now;
    self->cpu_s = clock != 0 ? or_nan(seconds_of((clockid_t)clock)) : NAN;
    self->run_delay_s = or_nan(run_delay_of((int)integer_of(self->usage, name_schedstat, -1)));
    self->process_s = or_nan(seconds_of(CLOCK_PROCESS_CPUTIME_ID));
    self->idle = self->ledger->idle;
}

#define MIN_PAUSE_S 1e-4 /* seconds: without a pause, a tick would not see whether the GIL is kept */

/* Return how often this thread has waited for something so far; -1: it is not known. */
static long waits_so_far(void)
{
#ifdef RUSAGE_THREAD
    struct rusage usage;
    if (getrusage(RUSAGE_THREAD, &usage) == 0)
        return usage.ru_nvcsw;
#endif
    return -1;
}

/* Sleep without the GIL. The stall sampler is told when the GIL is wanted again, and when it is there. Return for how many
   seconds it was waited for, and set how many of them may have been a run delay, and whether others have passed it around
   meanwhile: see gil_wait.py. */
static double pause_for(double seconds, int schedstat, double *delay, int *passed)
{
    PyThreadState *thread = PyEval_SaveThread();
    struct timespec left = {.tv_sec = (time_t)seconds, .tv_nsec = (long)(1e9 * (seconds - (double)(time_t)seconds))};
    watchdog_sleeps(monotonic_s() + seconds);
    nanosleep(&left, NULL);
    double delay_before = run_delay_of(schedstat);
    long waits = waits_so_far();
    watchdog_wants_gil();
    PyEval_RestoreThread(thread);
    double waited = watchdog_has_gil();
    *delay = 0.0;
    *passed = 0;
    waits = waits >= 0 ? waits_so_far() - waits : 1;
    if (waits == 0)
        return 0.0;
    if (waited < FREE_S)
        return waits < 2 ? waited : OTHERS_HAD_IT_S;
    long switches = gil_switches();
    *passed = switches >= 0 ? switches > 1 && (double)switches > waited / (2.0 * SWITCH_S)
                            : (double)waits > waited / SWITCH_S + 2.5;
    if (delay_before >= 0.0)
        *delay = fmax(0.0, fmin(run_delay_of(schedstat) - delay_before, waited - SWITCH_S * (double)(waits - 1)));
    return waited;
}

/* Return a descriptor, -1 for None. An error may be set. */
static int descriptor_of(PyObject *object)
{
    return object != Py_None ? (int)PyLong_AsLong(object) : -1;
}

static PyObject *pause_watchdog(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    if (given != 2)
        return PyErr_Format(PyExc_TypeError, "pause_watchdog() takes seconds and a descriptor");
    double seconds = PyFloat_AsDouble(args[0]);
    int own_schedstat = descriptor_of(args[1]);
    if (PyErr_Occurred())
        return NULL;
    int passed;
    double delay, waited = pause_for(fmax(seconds, MIN_PAUSE_S), own_schedstat, &delay, &passed);
    return Py_BuildValue("(ddi)", waited, delay, passed);
}

static Sampler *living(PyObject *reference)
{
    PyObject *sampler = PyWeakref_GetObject(reference);
    if (sampler == NULL || !PyObject_TypeCheck(sampler, sampler_type)) {
        PyErr_Clear();
        return NULL;
    }
    Sampler *self = (Sampler *)sampler;
    if (!self->awake || self->ledger == NULL || self->iterations == NULL || self->usage == NULL)
        return NULL;
    return (Sampler *)Py_NewRef(sampler);
}

static PyObject *quiet_ticks(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    if (given != 3)
        return PyErr_Format(PyExc_TypeError, "quiet_ticks() takes a reference, a descriptor and a number");
    int own_schedstat = descriptor_of(args[1]);
    long most = PyLong_AsLong(args[2]);
    if (PyErr_Occurred())
        return NULL;
    for (long tick = 0; tick < most && !interrupted; tick++) {
        Sampler *self = living(args[0]);
        if (self == NULL)
            break;
        double now = read_clock(self->ledger), due = isnan(self->due) ? now : self->due;
        Py_DECREF(self); /* a loop that ends meanwhile is not kept alive */
        if (PyErr_Occurred())
            return NULL;
        if (now - due >= STARVED_S) /* the GIL was kept before this call */
            break;
        int passed;
        double delay, waited = pause_for(fmax(due - now, MIN_PAUSE_S), own_schedstat, &delay, &passed);
        if ((self = living(args[0])) == NULL)
            break;
        now = read_clock(self->ledger);
        int rare = waited >= STARVED_S || is_held(self, now) || may_park(self, now);
        if (!rare) {
            remember(self, now);
            self->due = read_clock(self->ledger) + self->interval;
        }
        Py_DECREF(self);
        if (PyErr_Occurred())
            return NULL;
        if (rare)
            return Py_BuildValue("(ddi)", waited, delay, passed);
    }
    return Py_NewRef(Py_None);
}

static PyObject *interrupt_ticks(PyObject *module, PyObject *wanted)
{
    interrupted = wanted == Py_True;
    return Py_NewRef(Py_None);
}

static int sampler_traverse(Sampler *self, visitproc visit, void *arg)
{
    Py_VISIT(TYPE(self));
    Py_VISIT(self->parked);
    Py_VISIT(self->usage);
    Py_VISIT(self->ledger);
    Py_VISIT(self->iterations);
    return 0;
}

static int sampler_clear(Sampler *self)
{
    stop_watching(self); /* before what the stall sampler reads is gone */
    Py_CLEAR(self->parked);
    Py_CLEAR(self->usage);
    Py_CLEAR(self->ledger);
    Py_CLEAR(self->iterations);
    return 0;
}

static void sampler_dealloc(Sampler *self)
{
    PyObject_GC_UnTrack(self);
    if (self->weak != NULL)
        PyObject_ClearWeakRefs((PyObject *)self);
    sampler_clear(self);
    free_object((PyObject *)self);
}

static int sampler_init(Sampler *self, PyObject *args, PyObject *kwargs)
{
    PyObject *ledger, *iterations, *parked, *usage;
    double interval;
    if (!PyArg_ParseTuple(args, "O!O!OOd", ledger_type, &ledger, iterations_type, &iterations, &parked, &usage, &interval))
        return -1;
    stop_watching(self);
    REPLACE(self->ledger, Py_NewRef(ledger));
    REPLACE(self->iterations, Py_NewRef(iterations));
    REPLACE(self->parked, Py_NewRef(parked));
    REPLACE(self->usage, Py_NewRef(usage));
    self->interval = interval;
    self->due = self->when = self->cpu_s = self->run_delay_s = self->process_s = self->idle = NAN;
    self->marked = self->reported_at = NAN;
    self->awake = 0;
    return 0;
}

static PyObject *sampler_stop_watching(Sampler *self, PyObject *none)
{
    stop_watching(self);
    Py_RETURN_NONE;
}

static PyMethodDef sampler_methods[] = {
    {"take_mark", (PyCFunction)take_mark, METH_VARARGS,
     "Return whether a report of what began at `since` is due `now`. Whoever is told so makes it."},
    {"watch_without_gil", (PyCFunction)watch_without_gil, METH_VARARGS, "Have the stall sampler watch this loop."},
    {"stop_watching", (PyCFunction)sampler_stop_watching, METH_NOARGS, "Have the stall sampler watch it no more."},
    {NULL},
};

static PyMemberDef sampler_members[] = {
    {"usage", T_OBJECT, offsetof(Sampler, usage), 0, NULL},
    {"interval", T_DOUBLE, offsetof(Sampler, interval), READONLY, NULL},
    {"awake", T_BOOL, offsetof(Sampler, awake), 0, NULL},
    {"thread_id", T_ULONGLONG, offsetof(Sampler, thread_id), 0, NULL},
    {"native_id", T_ULONGLONG, offsetof(Sampler, native_id), 0, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Sampler, weak), READONLY, NULL},
    {NULL},
};

static PyGetSetDef sampler_getset[] = {
    OPTIONAL_SECONDS(Sampler, due),
    OPTIONAL_SECONDS(Sampler, when),
    OPTIONAL_SECONDS(Sampler, cpu_s),
    OPTIONAL_SECONDS(Sampler, run_delay_s),
    OPTIONAL_SECONDS(Sampler, process_s),
    OPTIONAL_SECONDS(Sampler, idle),
    {NULL},
};

static PyType_Spec sampler_spec = {
    "openrtc_introspect_core._native._meter.SamplerFields", sizeof(Sampler), 0, FLAGS | Py_TPFLAGS_BASETYPE,
    (PyType_Slot[]){
        {Py_tp_init, sampler_init},
        {Py_tp_members, sampler_members},
        {Py_tp_methods, sampler_methods},
        {Py_tp_getset, sampler_getset},
        {Py_tp_traverse, sampler_traverse},
        {Py_tp_clear, sampler_clear},
        {Py_tp_dealloc, sampler_dealloc},
        {0, NULL},
    },
};

static PyMethodDef functions[] = {
    {"pause_watchdog", (PyCFunction)(void (*)(void))pause_watchdog, METH_FASTCALL,
     "Sleep for some seconds, as the watchdog does between two ticks. Return for how many seconds the GIL was waited for "
     "after that, how many of them may have been a run delay (by the descriptor of the thread's schedstat file), and "
     "whether other threads have passed it around meanwhile."},
    {"run_delay", run_delay, METH_O, "Return a thread's run delay in seconds; None: it cannot be read."},
    {"quiet_ticks", (PyCFunction)(void (*)(void))quiet_ticks, METH_FASTCALL,
     "Take ticks of a sampler as long as nothing is held; return what `pause_watchdog` returns of one that is not so, or "
     "None."},
    {"interrupt_ticks", interrupt_ticks, METH_O,
     "True: have `quiet_ticks` return after the tick that is due next, now and until this is called with False."},
    {NULL},
};

int add_watch(PyObject *module)
{
    name_cpu_clock = PyUnicode_InternFromString("cpu_clock");
    name_schedstat = PyUnicode_InternFromString("schedstat");
    sampler_type = add_type(module, &sampler_spec, "SamplerFields");
    return sampler_type != NULL && !PyErr_Occurred() ? PyModule_AddFunctions(module, functions) : -1;
}
