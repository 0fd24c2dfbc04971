/* What the files of the step meter in C share: the fields that Python's classes inherit, the clock, and small helpers.

   The code is written against the stable ABI of Python 3.11, so one wheel a platform serves 3.11 and all later
   versions. The functions that the stable ABI lacks are looked up at import, see module.c. */

#ifndef OPENRTC_METER_H
#define OPENRTC_METER_H

#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <structmember.h>
#include <time.h>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)
#define READ_TICKS() __builtin_ia32_rdtsc() /* __rdtsc() of x86intrin.h, which takes a second to compile */
#define HAS_TICKS 1
#else
#define HAS_TICKS 0
#endif

#define NOTABLE_S 100e-6 /* seconds, as in spans.py */
#define LONG_S 500e-6    /* seconds, as in iterations.py */

#define FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC)
#define HAS_VECTORCALL (1UL << 11) /* Py_TPFLAGS_HAVE_VECTORCALL: in every Python 3, in the limited API since 3.12 */
#define ARGUMENTS(nargsf) ((Py_ssize_t)((nargsf) & ~((size_t)1 << (8 * sizeof(size_t) - 1)))) /* PyVectorcall_NARGS */

#define REPLACE(place, value)                    \
    do {                                         \
        PyObject *before_ = (PyObject *)(place); \
        (place) = (void *)(value);               \
        Py_XDECREF(before_);                     \
    } while (0)

#define TYPE(object) Py_TYPE((PyObject *)(object))

/* A missing object is NULL at first, and None once Python has set it to None. */
#define IS_NONE(object) ((object) == NULL || (object) == Py_None)

typedef PyObject *(*vectorcall)(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *kwnames);

/* --- fields.c: the fields that each step and each iteration reads and writes ------------------------------------- */

typedef struct {
    PyObject_HEAD
    PyObject *session;
    double busy, last_step;
    long long steps, heap, tasks;
    PyObject *label; /* bytes that name the session to who reads this without the GIL, see account.py */
} Account;

typedef struct {
    PyObject_HEAD
    PyObject *clock, *get, *binding, *holder, *unsampled, *untagged;
    PyObject *heap, *sampling, *parts;
    double holder_since;
    double step_since; /* NaN: None */
    double idle;       /* NaN: None */
    long long steps_until_sample, weight;
    char slow_path, switched;
    char clock_in_c; /* whether the last reading of the clock called no function in Python, which may fail */
    /* The clock of clock.c: seconds = ticks_s + (ticks - ticks_at) * tick_s, for the next `ticks_valid` ticks. */
    uint64_t ticks_at, ticks_valid;
    double ticks_s, tick_s;
    uint64_t anchor_at;
    double anchor_s;
    int disagreements;
} Ledger;

typedef struct {
    PyObject_HEAD
    Ledger *ledger;
    PyObject *after_block, *sample;
    double busy_since; /* NaN: None */
    double waiting_since;
    long long count;
    char wakes_watchdog;
} Iterations;

typedef struct {
    PyObject_HEAD
    PyObject *known_factory;
    char direct;
} Creation;

/* Return when the step under way began, see ledger.py; with the GIL or without. */
static inline double step_since(const Ledger *ledger)
{
    double since = *(const volatile double *)&ledger->step_since;
    return isnan(since) ? *(const volatile double *)&ledger->holder_since : since;
}

extern PyTypeObject *account_type, *ledger_type, *iterations_type, *creation_type;
int add_fields(PyObject *module);

/* A number of seconds that may be None: in C, NaN. */
PyObject *get_seconds(PyObject *self, void *offset);
int set_seconds(PyObject *self, PyObject *value, void *offset);

#define OPTIONAL_SECONDS(type, name) \
    {#name, get_seconds, set_seconds, NULL, (void *)offsetof(type, name)}

/* --- clock.c ------------------------------------------------------------------------------------------------------ */

int find_clock(PyObject *module);
double read_clock_slowly(Ledger *ledger);

/* Return the time in seconds, on the scale of time.perf_counter; -1.0 with an error set if the clock raised. */
static inline double read_clock(Ledger *ledger)
{
#if HAS_TICKS
    uint64_t elapsed = READ_TICKS() - ledger->ticks_at;
    if (elapsed < ledger->ticks_valid)
        return ledger->ticks_s + (double)elapsed * ledger->tick_s;
#endif
    return read_clock_slowly(ledger);
}

/* --- module.c ------------------------------------------------------------------------------------------------------ */

extern int (*context_var_get)(PyObject *var, PyObject *default_value, PyObject **value);
extern vectorcall call;
extern PyTypeObject *coroutine_type;

/* Suspend and resume tracing and profiling of a thread. NULL: this Python does not export them. */
extern void (*enter_tracing)(PyThreadState *thread), (*leave_tracing)(PyThreadState *thread);

/* Add a type to the module. Return the type, or NULL with an error set. */
PyTypeObject *add_type(PyObject *module, PyType_Spec *spec, const char *name);
void free_object(PyObject *self);

/* Take the error that is set, with its traceback. Return it, a new reference; NULL: none was set. */
PyObject *fetch_error(void);

/* Set an error that `fetch_error` returned, whose reference is taken. */
void raise_again(PyObject *error);

/* Take the error that is set. A fault of ours is given to the method `failed` of its owner, and to nothing else. Return
   NULL, or the error, a new reference, if it is an interrupt of the user's that came while our code ran. */
PyObject *take_fault(PyObject *owner);

/* Drop the result of a call. Return 0, or -1 with an error set. */
static inline int drop(PyObject *result)
{
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

/* --- iteration.c ---------------------------------------------------------------------------------------------------- */

/* What the end and the beginning of an iteration need. */
typedef struct {
    Iterations *iterations;
    Creation *creation;
    PyObject *loop;
    PyObject *adopted;     /* the dictionary of adopted tasks */
    PyObject *steps;       /* the deque of notable steps */
    PyObject *clear;       /* its method `clear` */
    PyObject *take_found;  /* the name of the method that takes what a wait has found, if somebody wants it */
    double limit;          /* seconds that an iteration may take */
} Timing;

typedef PyObject *(*Wait)(PyObject *callable, PyObject *const *args, Py_ssize_t given, PyObject *kwnames);

int add_iteration(PyObject *module);
int set_timing(Timing *self, PyObject *iterations, PyObject *creation, PyObject *loop, PyObject *adopted,
               PyObject *steps, double limit, const char *take_found);
int visit_timing(Timing *self, visitproc visit, void *arg);
void clear_timing(Timing *self);

/* Call `wait` with what follows, between two iterations. timeout: seconds; None or a negative number: any. */
PyObject *timed_wait(Timing *self, Wait wait, PyObject *callable, PyObject *const *args, Py_ssize_t given,
                     PyObject *kwnames, PyObject *timeout);

/* --- coroutine.c, create_task.c, select.c, poll.c, watch.c ---------------------------------------------------------- */

PyObject *metered_coroutine(PyObject *coro, Ledger *ledger, Account *tag);
int add_coroutine(PyObject *module);
int add_create_task(PyObject *module);
int add_poll(PyObject *module);
int add_select(PyObject *module);
int add_watch(PyObject *module);
int add_stack(PyObject *module);
int add_stall_thread(PyObject *module);

/* --- heap_methods.c, heap_reader.c, step_heap.c, trio_step.c, collections.c ----------------------------------------- */

typedef struct {
    PyObject_HEAD
    long long sampling_period;
    char on;
} Heap;

typedef struct {
    PyObject_HEAD
    Heap *heap;
    PyObject *raw, *clock, *times, *random;
    long long last, given_back, weight, due, untimed;
    double spent_s;
    char sampled;
} HeapReader;

extern PyTypeObject *reader_type;

/* Return the bytes in use by one of the module's methods, or by any callable; -1 with an error set if that fails. */
long long read_raw(PyObject *method);

/* Return 1 if the step that begins now is read, else 0; -1 with an error set. */
int draw(HeapReader *reader);

/* Return 0 and the bytes in use, with account of the reading; -1 with an error set. */
int read_heap(HeapReader *reader, long long *in_use);

/* Begin and end a step that is more than timed, as the ledger's methods of these names. Return 0, or -1 with an error set. */
int begin_slow_path(Ledger *ledger, PyObject *outside);
int end_slow_path(Ledger *ledger, PyObject *holder, double seconds);

int add_heap_methods(PyObject *module);
/* Return whether a step inside of `outside` is one more part of a divided step, which `add_part` takes account of. */
int is_one_more_part(Ledger *ledger, PyObject *outside);

/* Count a part of the divided step under way for an account, as `divide` of the ledger. Return 0, or -1 with an error set. */
int add_part(Ledger *ledger, PyObject *holder, double seconds);

int add_heap_reader(PyObject *module);
int add_step_heap(PyObject *module);
int add_trio_steps(PyObject *module);
int add_collections(PyObject *module);

#endif
