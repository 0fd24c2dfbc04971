/* The step meter in C: what _meter.py does, for a quarter of what it costs.

   Only what every step does is here. Whatever happens seldom (another session than before, a step inside another, a
   notable step, memory, a fraction of the steps) is a call of the ledger's methods, which are Python.

   Written against the stable ABI of Python 3.11, so that one wheel a platform serves that and all later ones. */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <time.h>

#define NOTABLE_S 100e-6 /* as in _ledger.py */

#define REPLACE(place, value)                   \
    do {                                        \
        PyObject *before_ = (PyObject *)(place); \
        (place) = (void *)(value);              \
        Py_XDECREF(before_);                    \
    } while (0)

#define TYPE(object) Py_TYPE((PyObject *)(object))

/* What is not there is NULL at first, and None once Python has set it to that. */
#define IS_NONE(object) ((object) == NULL || (object) == Py_None)

static PyTypeObject *account_type, *ledger_type;
static PyObject *perf_counter, *args_of_none;
static PyObject *name_account_of, *name_begin_special, *name_close, *name_end_failed, *name_failed, *name_interrupt,
    *name_throw;
static int perf_counter_is_monotonic; /* what time.perf_counter reads, clock_gettime(CLOCK_MONOTONIC) does, for less */

/* --- what a step reads and writes, for the Python classes to inherit ------------------------------------------- */

typedef struct {
    PyObject_HEAD
    PyObject *session;
    double busy;
    long long steps, heap, tasks;
} Account;

typedef struct {
    PyObject_HEAD
    PyObject *clock, *get, *left_out, *running;
    double since;
    long long gap;
    char special;
} Ledger;

static PyMemberDef account_members[] = {
    {"session", T_OBJECT, offsetof(Account, session), 0, NULL},
    {"busy", T_DOUBLE, offsetof(Account, busy), 0, NULL},
    {"steps", T_LONGLONG, offsetof(Account, steps), 0, NULL},
    {"heap", T_LONGLONG, offsetof(Account, heap), 0, NULL},
    {"tasks", T_LONGLONG, offsetof(Account, tasks), 0, NULL},
    {NULL},
};

static PyMemberDef ledger_members[] = {
    {"clock", T_OBJECT, offsetof(Ledger, clock), 0, NULL},
    {"get", T_OBJECT, offsetof(Ledger, get), 0, NULL},
    {"left_out", T_OBJECT, offsetof(Ledger, left_out), 0, NULL},
    {"running", T_OBJECT, offsetof(Ledger, running), 0, NULL},
    {"since", T_DOUBLE, offsetof(Ledger, since), 0, NULL},
    {"gap", T_LONGLONG, offsetof(Ledger, gap), 0, NULL},
    {"special", T_BOOL, offsetof(Ledger, special), 0, NULL},
    {NULL},
};

static int account_traverse(Account *self, visitproc visit, void *arg)
{
    Py_VISIT(TYPE(self));
    Py_VISIT(self->session);
    return 0;
}

static int account_clear(Account *self)
{
    Py_CLEAR(self->session);
    return 0;
}

static int ledger_traverse(Ledger *self, visitproc visit, void *arg)
{
    Py_VISIT(TYPE(self));
    Py_VISIT(self->clock);
    Py_VISIT(self->get);
    Py_VISIT(self->left_out);
    Py_VISIT(self->running);
    return 0;
}

static int ledger_clear(Ledger *self)
{
    Py_CLEAR(self->clock);
    Py_CLEAR(self->get);
    Py_CLEAR(self->left_out);
    Py_CLEAR(self->running);
    return 0;
}

static void let_go(PyObject *self)
{
    PyTypeObject *type = TYPE(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static void account_dealloc(Account *self)
{
    PyObject_GC_UnTrack(self);
    account_clear(self);
    let_go((PyObject *)self);
}

static void ledger_dealloc(Ledger *self)
{
    PyObject_GC_UnTrack(self);
    ledger_clear(self);
    let_go((PyObject *)self);
}

/* --- one step ---------------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    PyObject *coro, *session, *weak;
    Ledger *ledger;
    Account *holder, *tag;
    char counted; /* as one of its session's live tasks */
} Metered;

typedef struct {
    PyObject *outside; /* ours: who held the loop before */
    double start;
    int timed;
} Step;

static double read_clock(Ledger *ledger)
{
#ifdef CLOCK_MONOTONIC
    if (perf_counter_is_monotonic && ledger->clock == perf_counter) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    }
#endif
    PyObject *now = PyObject_CallNoArgs(ledger->clock);
    double seconds = now != NULL ? PyFloat_AsDouble(now) : -1.0;
    Py_XDECREF(now);
    return seconds;
}

/* The account of the session that is bound now becomes the holder. 0, or -1 with an error set. */
static int find_holder(Metered *self)
{
    PyObject *bound = PyObject_Call(self->ledger->get, args_of_none, NULL);
    if (bound == NULL)
        return -1;
    if (bound == self->session) {
        Py_DECREF(bound);
        return 0;
    }
    PyObject *account = PyObject_CallMethodObjArgs((PyObject *)self->ledger, name_account_of, bound, NULL);
    if (account == NULL) {
        Py_DECREF(bound);
        return -1;
    }
    REPLACE(self->session, bound);
    REPLACE(self->holder, account);
    return 0;
}

/* 0, or -1 with an error set and nothing begun. */
static int try_to_begin(Metered *self, Step *step)
{
    Ledger *ledger = self->ledger;
    PyObject *outside = ledger->running;
    int is_nested = !IS_NONE(outside);

    step->timed = 1;
    if (ledger->special) {
        if (is_nested ? outside == ledger->left_out : ledger->gap > 0) {
            step->timed = 0;
            step->outside = Py_XNewRef(outside);
            if (!is_nested) {
                ledger->gap--;
                REPLACE(ledger->running, Py_XNewRef(ledger->left_out));
            }
            return 0;
        }
        PyObject *none = PyObject_CallMethodObjArgs((PyObject *)ledger, name_begin_special,
                                                    is_nested ? outside : Py_None, NULL);
        if (none == NULL)
            return -1;
        Py_DECREF(none);
    }
    step->start = read_clock(ledger);
    if (step->start == -1.0 && PyErr_Occurred())
        return -1;
    if (is_nested) {
        PyObject *now = PyFloat_FromDouble(step->start);
        step->outside = now == NULL ? NULL
            : PyObject_CallMethodObjArgs((PyObject *)ledger, name_interrupt, outside, now, NULL);
        Py_XDECREF(now);
        if (step->outside == NULL)
            return -1;
    } else {
        step->outside = Py_XNewRef(outside);
    }
    if (find_holder(self) < 0) {
        Py_CLEAR(step->outside);
        return -1;
    }
    REPLACE(ledger->running, Py_NewRef((PyObject *)self->holder));
    ledger->since = step->start;
    return 0;
}

/* Takes the error that is set: the ledger is told of a fault of ours, which is nobody else's business. Returns NULL, or
   what was an interrupt of the user's that came while our code ran. */
static PyObject *take_fault(Ledger *ledger)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (error != NULL && traceback != NULL)
        PyException_SetTraceback(error, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    if (error != NULL && !PyErr_GivenExceptionMatches(error, PyExc_Exception))
        return error;
    PyObject *is_interrupt =
        error == NULL ? NULL : PyObject_CallMethodObjArgs((PyObject *)ledger, name_failed, error, NULL);
    if (is_interrupt == NULL)
        PyErr_Clear();
    Py_XDECREF(is_interrupt);
    if (is_interrupt == Py_True)
        return error;
    Py_XDECREF(error);
    return NULL;
}

/* NULL, or the interrupt that the coroutine is to get instead of what it was sent. The step goes on in any case. */
static PyObject *begin(Metered *self, Step *step)
{
    if (try_to_begin(self, step) == 0)
        return NULL;
    PyObject *interrupt = take_fault(self->ledger);
    step->timed = 0;
    step->outside = Py_XNewRef(self->ledger->running);
    return interrupt;
}

/* What goes wrong in the ledger's own methods is no error of the session's. An interrupt is kept in `interrupt`. */
static void swallow(Ledger *ledger, PyObject *result, PyObject **interrupt)
{
    if (result != NULL) {
        Py_DECREF(result);
        return;
    }
    PyObject *found = take_fault(ledger);
    if (*interrupt == NULL)
        *interrupt = found;
    else
        Py_XDECREF(found);
}

/* Whether an error of the user's is set or not, it still is afterwards. NULL, or an interrupt that came meanwhile. */
static PyObject *end(Metered *self, Step *step)
{
    Ledger *ledger = self->ledger;
    PyObject *type, *value, *traceback, *interrupt = NULL;

    if (!step->timed) {
        REPLACE(ledger->running, step->outside);
        return NULL;
    }
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *outside = IS_NONE(step->outside) ? Py_None : step->outside;
    PyObject *running = ledger->running; /* its holder, or who took over from it */
    if (running == NULL || !PyObject_TypeCheck(running, account_type)) {
        swallow(ledger, PyObject_CallMethodObjArgs((PyObject *)ledger, name_end_failed, Py_None, Py_None, outside,
                                                   (PyObject *)self->holder, NULL), &interrupt);
        REPLACE(ledger->running, step->outside);
        PyErr_Restore(type, value, traceback);
        return interrupt;
    }
    Py_INCREF(running);
    double now = read_clock(ledger), since = ledger->since;
    if (now == -1.0 && PyErr_Occurred()) {
        swallow(ledger, NULL, &interrupt);
        REPLACE(ledger->running, step->outside);
    } else {
        ((Account *)running)->busy += now - since;
        ((Account *)running)->steps++;
        if (ledger->special)
            swallow(ledger, PyObject_CallMethod((PyObject *)ledger, "end_special", "Od", running, now - since),
                    &interrupt);
        Py_INCREF(outside);
        REPLACE(ledger->running, step->outside);
        ledger->since = now;
        if (now - step->start > NOTABLE_S)
            swallow(ledger, PyObject_CallMethod((PyObject *)ledger, "note", "OOddd", running, outside, step->start,
                                                since, now), &interrupt);
        Py_DECREF(outside);
    }
    Py_DECREF(running);
    PyErr_Restore(type, value, traceback);
    return interrupt;
}

/* An interrupt that the coroutine cannot get any more, since it has ended: it comes again, or is at least heard of. */
static void put_off(PyObject *interrupt)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (PyErr_GivenExceptionMatches(interrupt, PyExc_KeyboardInterrupt)) {
        PyErr_SetInterrupt();
    } else {
        PyErr_SetObject((PyObject *)TYPE(interrupt), interrupt);
        PyErr_WriteUnraisable(NULL);
    }
    Py_DECREF(interrupt);
    PyErr_Restore(type, value, traceback);
}

static void count_down(Metered *self)
{
    if (self->counted) {
        self->counted = 0;
        self->tag->tasks--;
    }
}

/* --- what a task drives in place of the user's coroutine ----------------------------------------------------------- */

/* Whether the collector has taken it apart already, with an error set if so. */
static int is_cleared(Metered *self)
{
    if (self->coro == NULL)
        PyErr_SetString(PyExc_RuntimeError, "this coroutine was collected as garbage");
    return self->coro == NULL;
}

/* As `throw` of the user's coroutine. */
static PySendResult throw_into(PyObject *coro, PyObject *error, PyObject **result)
{
    PyObject *type, *value, *traceback;
    *result = PyObject_CallMethodObjArgs(coro, name_throw, error, NULL);
    Py_DECREF(error);
    if (*result != NULL)
        return PYGEN_NEXT;
    if (!PyErr_ExceptionMatches(PyExc_StopIteration))
        return PYGEN_ERROR;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    *result = value != NULL ? PyObject_GetAttrString(value, "value") : NULL;
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return *result != NULL ? PYGEN_RETURN : PYGEN_ERROR;
}

static PySendResult metered_am_send(Metered *self, PyObject *value, PyObject **result)
{
    Step step;
    *result = NULL;
    if (is_cleared(self))
        return PYGEN_ERROR;
    PyObject *interrupt = begin(self, &step);
    PySendResult status = interrupt == NULL ? PyIter_Send(self->coro, value, result)
                                            : throw_into(self->coro, interrupt, result);
    while ((interrupt = end(self, &step)) != NULL) {
        if (status != PYGEN_NEXT) {
            put_off(interrupt);
            break;
        }
        Py_CLEAR(*result); /* the coroutine gets it where it waits now */
        PyObject *another = begin(self, &step);
        Py_XDECREF(another);
        status = throw_into(self->coro, interrupt, result);
    }
    if (status != PYGEN_NEXT)
        count_down(self);
    return status;
}

static PyObject *metered_send(Metered *self, PyObject *value)
{
    PyObject *result, *stop;
    if (metered_am_send(self, value, &result) != PYGEN_RETURN)
        return result;
    stop = PyObject_CallFunctionObjArgs(PyExc_StopIteration, result, NULL); /* a tuple, or an error, may be the result */
    if (stop != NULL)
        PyErr_SetObject(PyExc_StopIteration, stop);
    Py_XDECREF(stop);
    Py_DECREF(result);
    return NULL;
}

static PyObject *call_as_step(Metered *self, PyObject *name, PyObject *args)
{
    Step step;
    PyObject *method = is_cleared(self) ? NULL : PyObject_GetAttr(self->coro, name);
    if (method == NULL)
        return NULL;
    PyObject *interrupt = begin(self, &step); /* takes the place of what is thrown, as it would without us */
    PyObject *result = interrupt == NULL ? PyObject_Call(method, args, NULL)
                                         : PyObject_CallMethodObjArgs(self->coro, name_throw, interrupt, NULL);
    Py_XDECREF(interrupt);
    Py_DECREF(method);
    if ((interrupt = end(self, &step)) != NULL)
        put_off(interrupt);
    if (result == NULL)
        count_down(self);
    return result;
}

static PyObject *metered_throw(Metered *self, PyObject *args)
{
    return call_as_step(self, name_throw, args);
}

static PyObject *metered_close(Metered *self, PyObject *args)
{
    PyObject *result = call_as_step(self, name_close, args);
    count_down(self);
    return result;
}

static PyObject *metered_next(Metered *self)
{
    return metered_send(self, Py_None);
}

static PyObject *metered_self(PyObject *self)
{
    return Py_NewRef(self);
}

static PyObject *metered_repr(Metered *self)
{
    return is_cleared(self) ? NULL : PyObject_Repr(self->coro);
}

/* It equals the user's coroutine, and itself. */
static PyObject *metered_richcompare(Metered *self, PyObject *other, int operation)
{
    if (operation != Py_EQ && operation != Py_NE)
        return Py_NewRef(Py_NotImplemented);
    int equal = other == (PyObject *)self || other == self->coro;
    return Py_NewRef(equal == (operation == Py_EQ) ? Py_True : Py_False);
}

static Py_hash_t metered_hash(Metered *self)
{
    return is_cleared(self) ? -1 : PyObject_Hash(self->coro);
}

/* What isinstance and inspect.iscoroutine ask. */
static PyObject *metered_class(Metered *self, void *closure)
{
    return Py_NewRef((PyObject *)TYPE(self->coro != NULL ? self->coro : (PyObject *)self));
}

static PyObject *metered_getattro(Metered *self, PyObject *name)
{
    PyObject *found = PyObject_GenericGetAttr((PyObject *)self, name);
    if (found == NULL && self->coro != NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        found = PyObject_GetAttr(self->coro, name);
    }
    return found;
}

static PyObject *metered_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *coro, *ledger, *tag, *send;
    if (!PyArg_ParseTuple(args, "OO!O!", &coro, ledger_type, &ledger, account_type, &tag))
        return NULL;
    send = PyObject_GetAttrString(coro, "send"); /* whatever has none is no coroutine: the error says so */
    if (send == NULL)
        return NULL;
    Py_DECREF(send);
    Metered *self = (Metered *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL)
        return NULL;
    self->coro = Py_NewRef(coro);
    self->ledger = (Ledger *)Py_NewRef(ledger);
    self->tag = (Account *)Py_NewRef(tag);
    self->holder = (Account *)Py_NewRef(tag);
    self->session = Py_NewRef(self->tag->session != NULL ? self->tag->session : Py_None);
    self->tag->tasks++;
    self->counted = 1;
    return (PyObject *)self;
}

static int metered_traverse(Metered *self, visitproc visit, void *arg)
{
    Py_VISIT(TYPE(self));
    Py_VISIT(self->coro);
    Py_VISIT(self->session);
    Py_VISIT(self->ledger);
    Py_VISIT(self->holder);
    Py_VISIT(self->tag);
    return 0;
}

/* Enough to break any cycle that this is a part of; the books are still needed to count its task down. */
static int metered_clear(Metered *self)
{
    Py_CLEAR(self->coro);
    return 0;
}

static void metered_dealloc(Metered *self)
{
    PyObject_GC_UnTrack(self);
    if (self->weak != NULL)
        PyObject_ClearWeakRefs((PyObject *)self);
    Py_CLEAR(self->coro);
    if (self->tag != NULL)
        count_down(self);
    Py_CLEAR(self->session);
    Py_CLEAR(self->ledger);
    Py_CLEAR(self->holder);
    Py_CLEAR(self->tag);
    let_go((PyObject *)self);
}

static PyMethodDef metered_methods[] = {
    {"send", (PyCFunction)metered_send, METH_O, NULL},
    {"throw", (PyCFunction)metered_throw, METH_VARARGS, NULL},
    {"close", (PyCFunction)metered_close, METH_VARARGS, NULL},
    {NULL},
};

static PyMemberDef metered_members[] = {
    {"coro", T_OBJECT, offsetof(Metered, coro), READONLY, NULL},
    {"tag", T_OBJECT, offsetof(Metered, tag), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Metered, weak), READONLY, NULL},
    {NULL},
};

static PyGetSetDef metered_getset[] = {
    {"__class__", (getter)metered_class, NULL, NULL, NULL},
    {NULL},
};

/* --- the module ---------------------------------------------------------------------------------------------------- */

#define FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC)

static PyType_Spec account_spec = {
    "openrtc_introspect_core._step_meter.AccountFields", sizeof(Account), 0, FLAGS | Py_TPFLAGS_BASETYPE,
    (PyType_Slot[]){
        {Py_tp_members, account_members},
        {Py_tp_traverse, account_traverse},
        {Py_tp_clear, account_clear},
        {Py_tp_dealloc, account_dealloc},
        {0, NULL},
    },
};

static PyType_Spec ledger_spec = {
    "openrtc_introspect_core._step_meter.LedgerFields", sizeof(Ledger), 0, FLAGS | Py_TPFLAGS_BASETYPE,
    (PyType_Slot[]){
        {Py_tp_members, ledger_members},
        {Py_tp_traverse, ledger_traverse},
        {Py_tp_clear, ledger_clear},
        {Py_tp_dealloc, ledger_dealloc},
        {0, NULL},
    },
};

static PyType_Spec metered_spec = {
    "openrtc_introspect_core._step_meter.MeteredCoroutine", sizeof(Metered), 0, FLAGS | Py_TPFLAGS_BASETYPE,
    (PyType_Slot[]){
        {Py_tp_new, metered_new},
        {Py_tp_members, metered_members},
        {Py_tp_getset, metered_getset},
        {Py_tp_methods, metered_methods},
        {Py_tp_getattro, metered_getattro},
        {Py_tp_repr, metered_repr},
        {Py_tp_richcompare, metered_richcompare},
        {Py_tp_hash, metered_hash},
        {Py_tp_iternext, metered_next}, /* `await` asks for it; without tp_iter it is no generator to isinstance */
        {Py_am_await, metered_self},
        {Py_am_send, metered_am_send},
        {Py_tp_traverse, metered_traverse},
        {Py_tp_clear, metered_clear},
        {Py_tp_dealloc, metered_dealloc},
        {0, NULL},
    },
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "openrtc_introspect_core._step_meter",
    .m_doc = "The step meter in C.",
    .m_size = -1,
};

/* 0, or -1 with an error set. */
static int find_clock(void)
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
    return perf_counter != NULL && how != NULL ? 0 : -1;
}

PyMODINIT_FUNC PyInit__step_meter(void)
{
    PyObject *module = PyModule_Create(&module_definition);
    if (module == NULL || find_clock() < 0)
        goto failed;
    PyObject *metered_type = PyType_FromSpec(&metered_spec);
    account_type = (PyTypeObject *)PyType_FromSpec(&account_spec);
    ledger_type = (PyTypeObject *)PyType_FromSpec(&ledger_spec);
    args_of_none = Py_BuildValue("(O)", Py_None);
    name_account_of = PyUnicode_InternFromString("account_of");
    name_begin_special = PyUnicode_InternFromString("begin_special");
    name_close = PyUnicode_InternFromString("close");
    name_end_failed = PyUnicode_InternFromString("end_failed");
    name_failed = PyUnicode_InternFromString("failed");
    name_interrupt = PyUnicode_InternFromString("interrupt");
    name_throw = PyUnicode_InternFromString("throw");
    if (PyErr_Occurred()
        || PyModule_AddObjectRef(module, "AccountFields", (PyObject *)account_type) < 0
        || PyModule_AddObjectRef(module, "LedgerFields", (PyObject *)ledger_type) < 0
        || PyModule_AddObjectRef(module, "MeteredCoroutine", metered_type) < 0)
        goto failed;
    Py_DECREF(metered_type);
    return module;
failed:
    Py_XDECREF(module);
    return NULL;
}
