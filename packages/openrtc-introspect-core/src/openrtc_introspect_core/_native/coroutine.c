/* The coroutine that a task drives in place of the user's: it does the same as meter.py, at a tenth of the cost.

   Only the work of every step is here. Rare work (a session other than before, a step inside of another, a notable
   step, sampling) is a call of the ledger's methods, which are in Python.
   tests/native/test_sources.py compares what is repeated here with the Python modules. */

#include "meter.h"

/* Looking up a context variable costs more than all the rest of a step: after each change of contexts, Python searches
   the context's mapping. The session bound in a task's context changes only where it is set, and who sets it says so to
   `rebound`. Some libraries copy variables from one context into another (asgiref does), and say nothing: so what a
   task knows holds for a millisecond. */
#define KNOWN_S 0.001

static unsigned long long rebindings;

typedef PySendResult (*Send)(PyObject *coro, PyObject *value, PyObject **result);

static PyTypeObject *metered_type;
static Send coroutine_send; /* `am_send` of coroutines: what PyIter_Send calls for them */
static allocfunc metered_alloc;
static freefunc metered_free;
static PyObject *name_account_of, *name_close, *name_end_failed, *name_end_unsampled, *name_interrupt, *name_throw;

/* --- one step ---------------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    PyObject *coro, *session, *weak;
    Send send; /* of `coro` */
    Ledger *ledger;
    Account *holder;
    /* Python 3.14's `python -m asyncio ps` reads this from outside the process as if it was a coroutine of Python's own.
       Where that has its state and the code of its frame, nothing is ever set: so the tool shows the task without a stack. */
    void *no_state, *no_code;
    Account *tag;
    unsigned long long known_at; /* `rebindings` when the session was looked up */
    double known_until;          /* clock reading until which it need not be looked up again */
    double stepped_at;           /* clock reading at the end of its last step. NaN: not known, or none has ended */
    char counted; /* whether it counts as one of its session's live tasks */
    char passes;  /* whether another one around it is metered in its place */
} Metered;

typedef struct {
    PyObject *outside; /* owned: the holder before the step */
    double start;
    int timed;
} Step;

/* Make the account of the session that is bound now the holder. Return 0, or -1 with an error set. */
static int find_holder(Metered *self)
{
    PyObject *bound;
    if (context_var_get(self->ledger->binding, Py_None, &bound) < 0)
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

/* Begin a step. Return 0, or -1 with an error set and nothing begun. */
static int try_to_begin(Metered *self, Step *step)
{
    Ledger *ledger = self->ledger;
    PyObject *outside = ledger->holder;
    int is_nested = !IS_NONE(outside);
    int is_part = is_nested && outside != ledger->unsampled && is_one_more_part(ledger, outside);

    step->timed = 1;
    if (ledger->slow_path) {
        if (is_nested ? outside == ledger->unsampled : ledger->steps_until_sample > 0) {
            step->timed = 0;
            step->outside = Py_XNewRef(outside);
            if (!is_nested) {
                ledger->steps_until_sample--;
                REPLACE(ledger->holder, Py_XNewRef(ledger->unsampled));
            }
            return 0;
        }
        if (!is_part && begin_slow_path(ledger, is_nested ? outside : Py_None) < 0)
            return -1;
    }
    step->start = read_clock(ledger);
    if (step->start == -1.0 && PyErr_Occurred())
        return -1;
    if (is_part) { /* as in the ledger's `interrupt` */
        double seconds = step->start - ledger->holder_since;
        ((Account *)outside)->busy += (double)ledger->weight * seconds;
        ((Account *)outside)->last_step = step->start;
        if (add_part(ledger, outside, seconds) < 0)
            return -1;
        step->outside = Py_NewRef(outside);
    } else if (is_nested) {
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
    REPLACE(ledger->holder, Py_NewRef((PyObject *)self->holder));
    ledger->holder_since = step->start;
    return 0;
}

/* Go on, untimed, with a step that could not begin. Return NULL, or the interrupt that the coroutine is to get instead
   of the value that was sent. */
static PyObject *begin_failed(Metered *self, Step *step)
{
    PyObject *interrupt = take_fault((PyObject *)self->ledger);
    step->timed = 0;
    step->outside = Py_XNewRef(self->ledger->holder);
    return interrupt;
}

/* Begin a step, which goes on whatever happens. Return what `begin_failed` returns, or NULL. */
static PyObject *begin(Metered *self, Step *step)
{
    return try_to_begin(self, step) == 0 ? NULL : begin_failed(self, step);
}

/* Drop the result of a method of the ledger. An error is none of the session's; an interrupt is kept in `interrupt`. */
static void swallow(Ledger *ledger, PyObject *result, PyObject **interrupt)
{
    if (result != NULL) {
        Py_DECREF(result);
        return;
    }
    PyObject *found = take_fault((PyObject *)ledger);
    if (*interrupt == NULL)
        *interrupt = found;
    else
        Py_XDECREF(found);
}

/* Have the host's profilers and trace functions not see our Python code, or see all code again. They are to find the
   task's return as the last thing that happened in its context: pyinstrument takes anything else for the end of a wait. */
static void hide(int hidden)
{
    if (enter_tracing != NULL && leave_tracing != NULL)
        (hidden ? enter_tracing : leave_tracing)(PyThreadState_Get());
}

/* End a step. An error of the user's that is set stays set. Return NULL, or an interrupt that came meanwhile. */
static PyObject *end(Metered *self, Step *step)
{
    Ledger *ledger = self->ledger;
    PyObject *type, *value, *traceback, *interrupt = NULL;

    if (!step->timed) {
        self->stepped_at = self->holder->last_step = ledger->holder_since; /* nearly now: other steps are timed */
        REPLACE(ledger->holder, step->outside);
        if (!ledger->switched)
            return NULL;
        PyErr_Fetch(&type, &value, &traceback);
        swallow(ledger, PyObject_CallMethodObjArgs((PyObject *)ledger, name_end_unsampled, NULL), &interrupt);
        PyErr_Restore(type, value, traceback);
        return interrupt;
    }
    PyErr_Fetch(&type, &value, &traceback);
    hide(1);
    PyObject *outside = IS_NONE(step->outside) ? Py_None : step->outside;
    PyObject *current = ledger->holder; /* the step's holder, or the one that took over from it */
    if (current == NULL || !PyObject_TypeCheck(current, account_type)) {
        swallow(ledger, PyObject_CallMethodObjArgs((PyObject *)ledger, name_end_failed, Py_None, Py_None, outside,
                                                   (PyObject *)self->holder, NULL), &interrupt);
        REPLACE(ledger->holder, step->outside);
        hide(0);
        PyErr_Restore(type, value, traceback);
        return interrupt;
    }
    Py_INCREF(current);
    double now = read_clock(ledger), since = ledger->holder_since;
    self->stepped_at = now;
    if (now == -1.0 && PyErr_Occurred()) {
        self->stepped_at = NAN;
        swallow(ledger, NULL, &interrupt);
        REPLACE(ledger->holder, step->outside);
    } else {
        ((Account *)current)->busy += now - since;
        ((Account *)current)->steps++;
        ((Account *)current)->last_step = now;
        if (ledger->slow_path && end_slow_path(ledger, current, now - since) < 0)
            swallow(ledger, NULL, &interrupt);
        Py_INCREF(outside);
        REPLACE(ledger->holder, step->outside);
        ledger->holder_since = now;
        if (outside != Py_None && TYPE(current) == TYPE(ledger->untagged) && is_one_more_part(ledger, outside)) {
            if (add_part(ledger, current, now - since) < 0)
                swallow(ledger, NULL, &interrupt);
        } else if (now - step->start > NOTABLE_S || outside != Py_None)
            swallow(ledger, PyObject_CallMethod((PyObject *)ledger, "note", "OOddd", current, outside, step->start,
                                                since, now), &interrupt);
        Py_DECREF(outside);
    }
    Py_DECREF(current);
    hide(0);
    PyErr_Restore(type, value, traceback);
    return interrupt;
}

/* Raise an interrupt again that the coroutine cannot get, because it has ended; or at least report it. */
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

/* --- the object that a task drives in place of the user's coroutine ----------------------------------------------- */

/* Return whether the collector has cleared it already. If so, an error is set. */
static int is_cleared(Metered *self)
{
    if (self->coro == NULL)
        PyErr_SetString(PyExc_RuntimeError, "this coroutine was collected as garbage");
    return self->coro == NULL;
}

/* Call `throw` of the user's coroutine. */
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

/* End a step that has run, and give the coroutine the interrupts that come meanwhile. */
static PySendResult finish(Metered *self, Step *step, PySendResult status, PyObject **result)
{
    PyObject *interrupt;
    while ((interrupt = end(self, step)) != NULL) {
        if (status != PYGEN_NEXT) {
            put_off(interrupt);
            break;
        }
        Py_CLEAR(*result); /* the coroutine gets the interrupt where it waits now */
        PyObject *another = begin(self, step);
        Py_XDECREF(another);
        status = throw_into(self->coro, interrupt, result);
    }
    if (status != PYGEN_NEXT)
        count_down(self);
    return status;
}

/* Run a step that has begun: with the value, or with the interrupt in its place, if there is one. */
static PySendResult run(Metered *self, Step *step, PyObject *interrupt, PyObject *value, PyObject **result)
{
    PySendResult status = interrupt == NULL ? PyIter_Send(self->coro, value, result)
                                            : throw_into(self->coro, interrupt, result);
    return finish(self, step, status, result);
}

/* Run a step that is more than timed, or whose beginning or end is rare. */
static PySendResult send_slowly(Metered *self, PyObject *value, PyObject **result)
{
    Step step;
    *result = NULL;
    if (is_cleared(self))
        return PYGEN_ERROR;
    if (self->passes) /* it is always here: the step of the one around it is under way */
        return PyIter_Send(self->coro, value, result);
    PyObject *interrupt = begin(self, &step);
    return run(self, &step, interrupt, value, result);
}

/* Run a step. What nearly every step needs is written out here. */
static PySendResult metered_am_send(Metered *self, PyObject *value, PyObject **result)
{
    Ledger *ledger = self->ledger;
    if (!IS_NONE(ledger->holder) || ledger->slow_path || self->coro == NULL)
        return send_slowly(self, value, result);
    Step step = {.outside = ledger->holder, .start = read_clock(ledger), .timed = 1};
    if (self->known_at != rebindings || step.start >= self->known_until) {
        if ((step.start == -1.0 && PyErr_Occurred()) || find_holder(self) < 0) {
            PyObject *interrupt = begin_failed(self, &step);
            return run(self, &step, interrupt, value, result);
        }
        if (ledger->clock_in_c) {
            self->known_at = rebindings;
            self->known_until = step.start + KNOWN_S;
        }
    }
    Account *holder = self->holder;
    ledger->holder = Py_NewRef((PyObject *)holder);
    ledger->holder_since = step.start;
    *result = NULL;
    PySendResult status = self->send(self->coro, value, result);
    if (ledger->holder != (PyObject *)holder || ledger->slow_path || !ledger->clock_in_c)
        return finish(self, &step, status, result);
    double now = read_clock(ledger);
    if (now - step.start > NOTABLE_S)
        return finish(self, &step, status, result);
    holder->busy += now - ledger->holder_since;
    holder->steps++;
    holder->last_step = self->stepped_at = ledger->holder_since = now;
    ledger->holder = step.outside;
    Py_DECREF(holder);
    if (status != PYGEN_NEXT)
        count_down(self);
    return status;
}

static PyObject *metered_send(Metered *self, PyObject *value)
{
    PyObject *result, *stop;
    if (metered_am_send(self, value, &result) != PYGEN_RETURN)
        return result;
    stop = PyObject_CallFunctionObjArgs(PyExc_StopIteration, result, NULL); /* the result may be a tuple, or an error */
    if (stop != NULL)
        PyErr_SetObject(PyExc_StopIteration, stop);
    Py_XDECREF(stop);
    Py_DECREF(result);
    return NULL;
}

/* Call `method` with up to four arguments, which no tuple holds meanwhile: who looks for what refers to an exception that
   is thrown finds nothing of ours. */
static PyObject *call_with(PyObject *method, PyObject *const *args, Py_ssize_t number)
{
    PyObject *of[4] = {NULL};
    for (Py_ssize_t i = 0; i < number && i < 4; i++)
        of[i] = args[i];
    return PyObject_CallFunctionObjArgs(method, of[0], of[1], of[2], of[3], NULL);
}

static PyObject *call_as_step(Metered *self, PyObject *name, PyObject *const *args, Py_ssize_t number)
{
    Step step;
    PyObject *method = is_cleared(self) ? NULL : PyObject_GetAttr(self->coro, name);
    if (method == NULL)
        return NULL;
    if (self->passes) {
        PyObject *result = call_with(method, args, number);
        Py_DECREF(method);
        return result;
    }
    PyObject *interrupt = begin(self, &step); /* it replaces what is thrown, as it would without us */
    PyObject *result = interrupt == NULL ? call_with(method, args, number)
                                         : PyObject_CallMethodObjArgs(self->coro, name_throw, interrupt, NULL);
    Py_XDECREF(interrupt);
    Py_DECREF(method);
    if ((interrupt = end(self, &step)) != NULL)
        put_off(interrupt);
    if (result == NULL)
        count_down(self);
    return result;
}

static PyObject *metered_throw(Metered *self, PyObject *const *args, Py_ssize_t number)
{
    return call_as_step(self, name_throw, args, number);
}

static PyObject *metered_close(Metered *self, PyObject *const *args, Py_ssize_t number)
{
    PyObject *result = call_as_step(self, name_close, args, number);
    count_down(self);
    return result;
}

static PyObject *metered_unmeter(Metered *self, PyObject *none)
{
    self->passes = 1;
    count_down(self);
    return Py_NewRef(Py_None);
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

/* Equal to the user's coroutine, and to itself. */
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

/* isinstance and inspect.iscoroutine ask for it. */
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

/* Return the coroutine for a task to drive in place of `coro`. It counts as one of the tasks of `tag`. */
static PyObject *new_coroutine(PyTypeObject *type, allocfunc allocate, PyObject *coro, Ledger *ledger, Account *tag)
{
    Metered *self = (Metered *)allocate(type, 0);
    if (self == NULL)
        return NULL;
    self->coro = Py_NewRef(coro);
    self->send = TYPE(coro) == coroutine_type ? coroutine_send : PyIter_Send;
    self->ledger = (Ledger *)Py_NewRef((PyObject *)ledger);
    self->tag = (Account *)Py_NewRef((PyObject *)tag);
    self->holder = (Account *)Py_NewRef((PyObject *)tag);
    self->session = Py_NewRef(tag->session != NULL ? tag->session : Py_None);
    self->stepped_at = NAN;
    self->counted = 1;
    tag->tasks++;
    return (PyObject *)self;
}

PyObject *metered_coroutine(PyObject *coro, Ledger *ledger, Account *tag)
{
    return new_coroutine(metered_type, metered_alloc, coro, ledger, tag);
}

static PyObject *metered_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *coro, *ledger, *tag;
    if (!PyArg_ParseTuple(args, "OO!O!", &coro, ledger_type, &ledger, account_type, &tag))
        return NULL;
    if (TYPE(coro) != coroutine_type) {
        PyObject *send = PyObject_GetAttrString(coro, "send"); /* without it, it is no coroutine: the error says so */
        if (send == NULL)
            return NULL;
        Py_DECREF(send);
    }
    return new_coroutine(type, (allocfunc)PyType_GetSlot(type, Py_tp_alloc), coro, (Ledger *)ledger, (Account *)tag);
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

/* Enough to break any cycle that this is a part of; the account is still needed to count its task down. */
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
    if (TYPE(self) != metered_type) {
        free_object((PyObject *)self);
        return;
    }
    metered_free(self);
    Py_DECREF(metered_type);
}

static PyMethodDef metered_methods[] = {
    {"send", (PyCFunction)metered_send, METH_O, NULL},
    {"throw", (PyCFunction)(void (*)(void))metered_throw, METH_FASTCALL, NULL},
    {"close", (PyCFunction)(void (*)(void))metered_close, METH_FASTCALL, NULL},
    {"unmeter", (PyCFunction)metered_unmeter, METH_NOARGS, NULL},
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
    {"stepped_at", get_seconds, NULL, NULL, (void *)offsetof(Metered, stepped_at)},
    {NULL},
};

static PyType_Spec metered_spec = {
    "openrtc_introspect_core._native._meter.MeteredCoroutine", sizeof(Metered), 0, FLAGS | Py_TPFLAGS_BASETYPE,
    (PyType_Slot[]){
        {Py_tp_new, metered_new},
        {Py_tp_members, metered_members},
        {Py_tp_getset, metered_getset},
        {Py_tp_methods, metered_methods},
        {Py_tp_getattro, metered_getattro},
        {Py_tp_repr, metered_repr},
        {Py_tp_richcompare, metered_richcompare},
        {Py_tp_hash, metered_hash},
        {Py_tp_iternext, metered_next}, /* for `await`; without tp_iter it is no generator to isinstance */
        {Py_am_await, metered_self},
        {Py_am_send, metered_am_send},
        {Py_tp_traverse, metered_traverse},
        {Py_tp_clear, metered_clear},
        {Py_tp_dealloc, metered_dealloc},
        {0, NULL},
    },
};

static PyObject *rebound(PyObject *module, PyObject *none)
{
    rebindings++;
    return Py_NewRef(Py_None);
}

static PyMethodDef functions[] = {
    {"rebound", rebound, METH_NOARGS, "Take note that a session was bound in some context, or is no longer."},
    {NULL},
};

int add_coroutine(PyObject *module)
{
    if (PyModule_AddFunctions(module, functions) < 0)
        return -1;
    name_account_of = PyUnicode_InternFromString("account_of");
    name_close = PyUnicode_InternFromString("close");
    name_end_unsampled = PyUnicode_InternFromString("end_unsampled");
    name_end_failed = PyUnicode_InternFromString("end_failed");
    name_interrupt = PyUnicode_InternFromString("interrupt");
    name_throw = PyUnicode_InternFromString("throw");
    metered_type = add_type(module, &metered_spec, "MeteredCoroutine");
    if (metered_type == NULL || PyErr_Occurred())
        return -1;
    coroutine_send = (Send)PyType_GetSlot(coroutine_type, Py_am_send);
    if (coroutine_send == NULL)
        coroutine_send = PyIter_Send;
    metered_alloc = (allocfunc)PyType_GetSlot(metered_type, Py_tp_alloc);
    metered_free = (freefunc)PyType_GetSlot(metered_type, Py_tp_free);
    return 0;
}
