/* The steps and the iterations of a Trio run, as an instrument of Trio: trio_steps.py says what it does, and does what
   is rare. Each method returns None whatever happens: a fault of ours is given to `failed` of the instrument. */

#include "meter.h"

typedef struct {
    PyObject_HEAD
    Ledger *ledger;
    Iterations *iterations;
    PyObject *accounts; /* the dictionary of the ledger's accounts by session */
    PyObject *notable;  /* the deque of notable steps */
    PyObject *stepping; /* the task whose step runs */
    PyObject *hosting;  /* the dictionary of the tasks whose steps are not metered: what runs in them is */
    double began;       /* NaN: the step is not timed */
    double limit;       /* seconds that a wait may be late */
    char meters, stepped;
} TrioSteps;

static PyTypeObject *steps_type, *context_type;
static PyObject *context_get;
static PyObject *name_account_of, *name_call_failed, *name_clear, *name_context, *name_end_open_steps,
    *name_end_unsampled, *name_failed, *name_get;

/* Report the error that is set, which is a fault of ours, and return None. What is no Exception stays set: NULL. */
static PyObject *report(TrioSteps *self)
{
    PyObject *error = fetch_error();
    if (error == NULL || !PyErr_GivenExceptionMatches(error, PyExc_Exception)) {
        raise_again(error);
        return NULL;
    }
    PyObject *done = PyObject_CallMethodObjArgs((PyObject *)self, name_failed, error, NULL);
    Py_XDECREF(error);
    return done;
}

static PyObject *none_or_report(TrioSteps *self, int status)
{
    return status == 0 ? Py_NewRef(Py_None) : report(self);
}

/* Return 0, or -1 with an error set: it was never told its ledger, or the collector has cleared it. */
static int check(TrioSteps *self)
{
    if (self->ledger == NULL)
        PyErr_SetString(PyExc_RuntimeError, "this instrument has no ledger");
    return self->ledger != NULL ? 0 : -1;
}

/* --- steps ----------------------------------------------------------------------------------------------------------- */

/* Return the session that is bound in the task's context, a new reference, or NULL with an error set. */
static PyObject *bound_in(PyObject *task, PyObject *binding)
{
    PyObject *context = PyObject_GetAttr(task, name_context);
    if (context == NULL)
        return NULL;
    PyObject *arguments[] = {context, binding};
    PyObject *session = TYPE(context) == context_type ? call(context_get, arguments, 2, NULL)
                                                      : PyObject_CallMethodObjArgs(context, name_get, binding, NULL);
    Py_DECREF(context);
    return session;
}

/* Return the account of a session, a new reference, or NULL with an error set. */
static PyObject *account_of(TrioSteps *self, PyObject *session)
{
    if (session == Py_None)
        return Py_XNewRef(self->ledger->untagged);
    PyObject *account = PyDict_GetItemWithError(self->accounts, session);
    if (account != NULL)
        return Py_NewRef(account);
    return PyErr_Occurred() ? NULL
                            : PyObject_CallMethodObjArgs((PyObject *)self->ledger, name_account_of, session, NULL);
}

static int begin_step(TrioSteps *self, PyObject *task)
{
    Ledger *ledger = self->ledger;

    REPLACE(self->stepping, Py_NewRef(task));
    self->stepped = 1;
    int hosts = PyDict_Size(self->hosting) > 0 ? PyDict_Contains(self->hosting, task) : 0;
    if (hosts != 0 || !self->meters)
        return hosts < 0 ? -1 : 0;
    if (ledger->slow_path) {
        if (ledger->steps_until_sample > 0) {
            ledger->steps_until_sample--;
            REPLACE(ledger->holder, Py_XNewRef(ledger->unsampled));
            return 0;
        }
        if (begin_slow_path(ledger, Py_None) < 0)
            return -1;
    }
    PyObject *session = bound_in(task, ledger->binding);
    PyObject *account = session != NULL ? account_of(self, session) : NULL;
    Py_XDECREF(session);
    if (account == NULL)
        return -1;
    REPLACE(ledger->holder, account);
    double now = read_clock(ledger);
    if (now == -1.0 && PyErr_Occurred())
        return -1;
    ledger->holder_since = self->began = now;
    return 0;
}

static int end_step(TrioSteps *self)
{
    Ledger *ledger = self->ledger;
    double now = read_clock(ledger), began = self->began, since = ledger->holder_since;

    if (now == -1.0 && PyErr_Occurred())
        return -1;
    self->began = NAN;
    if (isnan(began)) {
        if (ledger->holder == ledger->unsampled)
            REPLACE(ledger->holder, NULL);
        else if (!IS_NONE(ledger->holder) &&
                 drop(PyObject_CallMethodObjArgs((PyObject *)self, name_end_open_steps, NULL)) < 0)
            return -1;
        return ledger->switched ? drop(PyObject_CallMethodObjArgs((PyObject *)ledger, name_end_unsampled, NULL)) : 0;
    }
    PyObject *holder = ledger->holder; /* the step's, or the one that took over from it */
    if (holder == NULL || TYPE(holder) != TYPE(ledger->untagged) || now - began > NOTABLE_S)
        return drop(PyObject_CallMethod((PyObject *)ledger, "end", "OdOd", Py_None, began, Py_None, now));
    int status = 0;
    ((Account *)holder)->busy += now - since;
    ((Account *)holder)->steps++;
    ((Account *)holder)->last_step = now;
    if (ledger->slow_path) {
        Py_INCREF(holder);
        status = end_slow_path(ledger, holder, now - since);
        Py_DECREF(holder);
    }
    REPLACE(ledger->holder, NULL);
    ledger->holder_since = now;
    return status;
}

static PyObject *before_task_step(TrioSteps *self, PyObject *task)
{
    return none_or_report(self, check(self) < 0 ? -1 : begin_step(self, task));
}

static PyObject *after_task_step(TrioSteps *self, PyObject *task)
{
    int status = check(self) < 0 ? -1 : end_step(self);
    if (status == 0)
        REPLACE(self->stepping, NULL);
    return none_or_report(self, status);
}

/* --- iterations ------------------------------------------------------------------------------------------------------ */

static int end_iteration(TrioSteps *self)
{
    Iterations *iterations = self->iterations;
    double began = read_clock(self->ledger);

    if (began == -1.0 && PyErr_Occurred())
        return -1;
    if (!self->stepped || !(began - iterations->busy_since <= LONG_S) || !IS_NONE(iterations->after_block))
        return drop(PyObject_CallMethod((PyObject *)self, "about_to_wait", "d", began));
    iterations->waiting_since = began;
    iterations->busy_since = NAN;
    return PyObject_Size(self->notable) != 0 ? drop(PyObject_CallMethodObjArgs(self->notable, name_clear, NULL)) : 0;
}

static int begin_iteration(TrioSteps *self, PyObject *timeout)
{
    Iterations *iterations = self->iterations;
    Ledger *ledger = self->ledger;
    double woke = read_clock(ledger), waited = woke - iterations->waiting_since;

    if (woke == -1.0 && PyErr_Occurred())
        return -1;
    iterations->count++;
    if (!isnan(iterations->busy_since) || waited > self->limit || iterations->wakes_watchdog
        || !IS_NONE(iterations->after_block))
        return drop(PyObject_CallMethod((PyObject *)self, "has_woken", "dO", woke, timeout));
    ledger->idle += waited;
    iterations->busy_since = woke;
    self->stepped = 0;
    return 0;
}

static PyObject *before_io_wait(TrioSteps *self, PyObject *timeout)
{
    return none_or_report(self, check(self) < 0 ? -1 : end_iteration(self));
}

static PyObject *after_io_wait(TrioSteps *self, PyObject *timeout)
{
    return none_or_report(self, check(self) < 0 ? -1 : begin_iteration(self, timeout));
}

/* --- the type -------------------------------------------------------------------------------------------------------- */

static PyObject *use(TrioSteps *self, PyObject *args)
{
    PyObject *ledger, *iterations, *accounts, *notable, *hosting;
    double limit;
    if (!PyArg_ParseTuple(args, "O!O!O!OdO!", ledger_type, &ledger, iterations_type, &iterations, &PyDict_Type,
                          &accounts, &notable, &limit, &PyDict_Type, &hosting))
        return NULL;
    REPLACE(self->ledger, Py_NewRef(ledger));
    REPLACE(self->iterations, Py_NewRef(iterations));
    REPLACE(self->accounts, Py_NewRef(accounts));
    REPLACE(self->notable, Py_NewRef(notable));
    REPLACE(self->hosting, Py_NewRef(hosting));
    self->limit = limit;
    self->began = NAN;
    return Py_NewRef(Py_None);
}

static int steps_traverse(TrioSteps *self, visitproc visit, void *arg)
{
    Py_VISIT(TYPE(self));
    Py_VISIT(self->ledger);
    Py_VISIT(self->iterations);
    Py_VISIT(self->accounts);
    Py_VISIT(self->notable);
    Py_VISIT(self->stepping);
    Py_VISIT(self->hosting);
    return 0;
}

static int steps_clear(TrioSteps *self)
{
    Py_CLEAR(self->ledger);
    Py_CLEAR(self->iterations);
    Py_CLEAR(self->accounts);
    Py_CLEAR(self->notable);
    Py_CLEAR(self->stepping);
    Py_CLEAR(self->hosting);
    return 0;
}

static void steps_dealloc(TrioSteps *self)
{
    PyObject_GC_UnTrack(self);
    steps_clear(self);
    free_object((PyObject *)self);
}

static PyMethodDef steps_methods[] = {
    {"before_task_step", (PyCFunction)before_task_step, METH_O, NULL},
    {"after_task_step", (PyCFunction)after_task_step, METH_O, NULL},
    {"before_io_wait", (PyCFunction)before_io_wait, METH_O, NULL},
    {"after_io_wait", (PyCFunction)after_io_wait, METH_O, NULL},
    {"_use", (PyCFunction)use, METH_VARARGS, NULL},
    {NULL},
};

static PyMemberDef steps_members[] = {
    {"stepping", T_OBJECT, offsetof(TrioSteps, stepping), 0, NULL},
    {"meters", T_BOOL, offsetof(TrioSteps, meters), 0, NULL},
    {"stepped", T_BOOL, offsetof(TrioSteps, stepped), 0, NULL},
    {NULL},
};

static PyGetSetDef steps_getset[] = {
    OPTIONAL_SECONDS(TrioSteps, began),
    {NULL},
};

static PyType_Spec steps_spec = {
    "openrtc_introspect_core._native._meter.TrioSteps", sizeof(TrioSteps), 0, FLAGS | Py_TPFLAGS_BASETYPE,
    (PyType_Slot[]){
        {Py_tp_methods, steps_methods},
        {Py_tp_members, steps_members},
        {Py_tp_getset, steps_getset},
        {Py_tp_traverse, steps_traverse},
        {Py_tp_clear, steps_clear},
        {Py_tp_dealloc, steps_dealloc},
        {0, NULL},
    },
};

/* --- the calls of a run's instruments ------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    PyObject *calls;      /* the dictionary of the run's instruments by the name of what is called */
    TrioSteps *steps;     /* the instrument that is called directly if it is the only one */
    PyObject *call_all;   /* Trio's own function, for all other cases */
} TrioCalls;

static struct {
    const char *text;
    PyObject *name;
    PyObject *(*function)(TrioSteps *self, PyObject *argument);
} direct[] = {
    {"before_task_step", NULL, before_task_step},
    {"after_task_step", NULL, after_task_step},
    {"before_io_wait", NULL, before_io_wait},
    {"after_io_wait", NULL, after_io_wait},
};

#define DIRECT (sizeof direct / sizeof direct[0])

/* Return whether `steps` is the only instrument for this name; -1 with an error set. */
static int is_alone(TrioCalls *self, PyObject *name)
{
    Py_ssize_t position = 0;
    PyObject *instrument, *none, *instruments = PyDict_GetItemWithError(self->calls, name);
    if (instruments == NULL)
        return PyErr_Occurred() ? -1 : 0;
    return PyDict_Check(instruments) && PyDict_Size(instruments) == 1
        && PyDict_Next(instruments, &position, &instrument, &none) && instrument == (PyObject *)self->steps;
}

static PyObject *calls_call(TrioCalls *self, PyObject *const *args, Py_ssize_t given)
{
    if (self->calls == NULL || given < 1 || given > 8) {
        PyErr_SetString(PyExc_TypeError, "a call of instruments takes a name and arguments");
        return NULL;
    }
    for (size_t index = 0; given == 2 && index < DIRECT; index++) {
        if (args[0] != direct[index].name)
            continue;
        int alone = is_alone(self, args[0]);
        if (alone < 0)
            return NULL;
        if (!alone)
            break;
        PyObject *steps = Py_NewRef((PyObject *)self->steps); /* a fault may remove it from the run */
        PyObject *done = direct[index].function((TrioSteps *)steps, args[1]);
        Py_DECREF(steps);
        if (done != NULL)
            return done;
        PyObject *error = fetch_error();
        done = PyObject_CallMethodObjArgs((PyObject *)self, name_call_failed, args[0], error, NULL);
        Py_XDECREF(error);
        return done;
    }
    PyObject *arguments[9] = {(PyObject *)self};
    for (Py_ssize_t index = 0; index < given; index++)
        arguments[1 + index] = args[index];
    return call(self->call_all, arguments, (size_t)given + 1, NULL);
}

static int calls_contains(TrioCalls *self, PyObject *name)
{
    return self->calls != NULL ? PyDict_Contains(self->calls, name) : 0;
}

static PyObject *calls_use(TrioCalls *self, PyObject *args)
{
    PyObject *calls, *steps, *call_all;
    if (!PyArg_ParseTuple(args, "O!O!O", &PyDict_Type, &calls, steps_type, &steps, &call_all))
        return NULL;
    REPLACE(self->calls, Py_NewRef(calls));
    REPLACE(self->steps, Py_NewRef(steps));
    REPLACE(self->call_all, Py_NewRef(call_all));
    return Py_NewRef(Py_None);
}

static int calls_traverse(TrioCalls *self, visitproc visit, void *arg)
{
    Py_VISIT(TYPE(self));
    Py_VISIT(self->calls);
    Py_VISIT(self->steps);
    Py_VISIT(self->call_all);
    return 0;
}

static int calls_clear(TrioCalls *self)
{
    Py_CLEAR(self->calls);
    Py_CLEAR(self->steps);
    Py_CLEAR(self->call_all);
    return 0;
}

static void calls_dealloc(TrioCalls *self)
{
    PyObject_GC_UnTrack(self);
    calls_clear(self);
    free_object((PyObject *)self);
}

static PyMethodDef calls_methods[] = {
    {"call", (PyCFunction)(void (*)(void))calls_call, METH_FASTCALL, NULL},
    {"_use", (PyCFunction)calls_use, METH_VARARGS, NULL},
    {NULL},
};

static PyType_Spec calls_spec = {
    "openrtc_introspect_core._native._meter.TrioCalls", sizeof(TrioCalls), 0, FLAGS | Py_TPFLAGS_BASETYPE,
    (PyType_Slot[]){
        {Py_tp_methods, calls_methods},
        {Py_sq_contains, calls_contains},
        {Py_tp_traverse, calls_traverse},
        {Py_tp_clear, calls_clear},
        {Py_tp_dealloc, calls_dealloc},
        {0, NULL},
    },
};

static int find_context(void)
{
    PyObject *module = PyImport_ImportModule("contextvars");
    context_type = module != NULL ? (PyTypeObject *)PyObject_GetAttrString(module, "Context") : NULL;
    context_get = context_type != NULL ? PyObject_GetAttrString((PyObject *)context_type, "get") : NULL;
    Py_XDECREF(module);
    return context_get != NULL ? 0 : -1;
}

int add_trio_steps(PyObject *module)
{
    name_account_of = PyUnicode_InternFromString("account_of");
    name_call_failed = PyUnicode_InternFromString("call_failed");
    name_clear = PyUnicode_InternFromString("clear");
    name_context = PyUnicode_InternFromString("context");
    name_end_open_steps = PyUnicode_InternFromString("end_open_steps");
    name_end_unsampled = PyUnicode_InternFromString("end_unsampled");
    name_failed = PyUnicode_InternFromString("failed");
    name_get = PyUnicode_InternFromString("get");
    for (size_t index = 0; index < DIRECT; index++)
        direct[index].name = PyUnicode_InternFromString(direct[index].text);
    steps_type = add_type(module, &steps_spec, "TrioSteps");
    return find_context() == 0 && steps_type != NULL && add_type(module, &calls_spec, "TrioCalls") != NULL
        && !PyErr_Occurred() ? 0 : -1;
}
