/* The end of an iteration and the beginning of the next, around a wait of the loop. selector_iterations.py says what is
   done, and does what is rare: it is called only if something is late, nested or new. */

#include "meter.h"

static PyObject *name_about_to_wait, *name_task_factory;

/* Take a fault of ours. Return 0, or -1 with the error set again if it is an interrupt of the user's. */
static int pass_interrupt(Timing *self)
{
    PyObject *interrupt = take_fault((PyObject *)self->iterations);
    if (interrupt == NULL)
        return 0;
    raise_again(interrupt);
    return -1;
}

/* Return whether all is as at nearly every wait: no step is open, no older task is adopted, the factory is known, nobody
   samples iterations, and the one that ends was short. */
static int is_usual(Timing *self, Ledger *ledger, double began)
{
    Iterations *iterations = self->iterations;
    if (!IS_NONE(ledger->holder) || !(began - iterations->busy_since <= LONG_S) || PyDict_Size(self->adopted) != 0
        || !IS_NONE(iterations->sample))
        return 0;
    PyObject *factory = PyObject_GetAttr(self->loop, name_task_factory);
    if (factory == NULL) {
        PyErr_Clear();
        return 0;
    }
    Py_DECREF(factory);
    return factory == self->creation->known_factory;
}

/* End the iteration. Return 0 and the step that runs it, owned (NULL: none does); -1 with an error set. */
static int end_iteration(Timing *self, double began, PyObject **suspended)
{
    Iterations *iterations = self->iterations;
    *suspended = NULL;
    if (began == -1.0 && PyErr_Occurred())
        return -1;
    if (!is_usual(self, iterations->ledger, began)) {
        PyObject *at = PyFloat_FromDouble(began);
        if (at != NULL)
            *suspended = PyObject_CallMethodObjArgs((PyObject *)iterations, name_about_to_wait, at, NULL);
        Py_XDECREF(at);
        return *suspended != NULL ? 0 : -1;
    }
    iterations->waiting_since = began;
    iterations->busy_since = NAN;
    return PyObject_Size(self->steps) != 0 ? drop(call(self->clear, NULL, 0, NULL)) : 0;
}

/* Begin an iteration. Return 0, or -1 with an error set. */
static int begin_iteration(Timing *self, double began, PyObject *timeout, PyObject *suspended)
{
    Iterations *iterations = self->iterations;
    Ledger *ledger = iterations->ledger;
    double woke = read_clock(ledger);
    if (woke == -1.0 && PyErr_Occurred())
        return -1;
    ledger->idle += woke - began;
    iterations->count++;
    ledger->holder_since = iterations->busy_since = woke;
    if (IS_NONE(suspended) && !iterations->wakes_watchdog && (woke - began <= self->limit || timeout == Py_None))
        return 0;
    return drop(PyObject_CallMethod((PyObject *)iterations, "has_woken", "ddOO", began, woke, timeout,
                                    suspended != NULL ? suspended : Py_None));
}

PyObject *timed_wait(Timing *self, Wait wait, PyObject *callable, PyObject *const *args, Py_ssize_t given,
                     PyObject *kwnames, PyObject *timeout)
{
    PyObject *suspended;
    double began = read_clock(self->iterations->ledger);
    if (end_iteration(self, began, &suspended) < 0)
        return pass_interrupt(self) == 0 ? wait(callable, args, given, kwnames) : NULL;
    PyObject *ready = wait(callable, args, given, kwnames);
    PyObject *type = NULL, *value = NULL, *traceback = NULL;
    if (ready == NULL)
        PyErr_Fetch(&type, &value, &traceback);
    int interrupted = begin_iteration(self, began, timeout, suspended) < 0 && pass_interrupt(self) < 0;
    if (!interrupted && ready != NULL && !(IS_NONE(self->iterations->after_block) && IS_NONE(self->iterations->sample)))
        interrupted =
            drop(PyObject_CallMethodObjArgs((PyObject *)self->iterations, self->take_found, ready, NULL)) < 0
            && pass_interrupt(self) < 0;
    Py_XDECREF(suspended);
    if (interrupted) { /* it takes the place of what the wait gave, as it would without us */
        Py_CLEAR(ready);
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
    } else if (ready == NULL) {
        PyErr_Restore(type, value, traceback);
    }
    return ready;
}

int set_timing(Timing *self, PyObject *iterations, PyObject *creation, PyObject *loop, PyObject *adopted,
               PyObject *steps, double limit, const char *take_found)
{
    PyObject *ledger = (PyObject *)((Iterations *)iterations)->ledger;
    if (ledger == NULL || !PyObject_TypeCheck(ledger, ledger_type)) {
        PyErr_SetString(PyExc_TypeError, "these iterations have no ledger");
        return -1;
    }
    self->iterations = (Iterations *)Py_NewRef(iterations);
    self->creation = (Creation *)Py_NewRef(creation);
    self->loop = Py_NewRef(loop);
    self->adopted = Py_NewRef(adopted);
    self->steps = Py_NewRef(steps);
    self->clear = PyObject_GetAttrString(steps, "clear");
    self->take_found = PyUnicode_InternFromString(take_found);
    self->limit = limit;
    return self->clear != NULL && self->take_found != NULL ? 0 : -1;
}

int visit_timing(Timing *self, visitproc visit, void *arg)
{
    Py_VISIT(self->iterations);
    Py_VISIT(self->creation);
    Py_VISIT(self->loop);
    Py_VISIT(self->adopted);
    Py_VISIT(self->steps);
    Py_VISIT(self->clear);
    return 0;
}

void clear_timing(Timing *self)
{
    Py_CLEAR(self->iterations);
    Py_CLEAR(self->creation);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->adopted);
    Py_CLEAR(self->steps);
    Py_CLEAR(self->clear);
    Py_CLEAR(self->take_found);
}

int add_iteration(PyObject *module)
{
    name_about_to_wait = PyUnicode_InternFromString("about_to_wait");
    name_task_factory = PyUnicode_InternFromString("_task_factory");
    return PyErr_Occurred() ? -1 : 0;
}
