/* The `select.epoll` object of a selector, while attached: `poll` times each iteration, see iteration.c; all else is the
   object's own.

   A selector of asyncio's waits in `selector._selector.poll`. Replacing `selector.select` would cost a step from C back
   into Python for each iteration, which takes more than all the rest. */

#include "meter.h"

typedef struct {
    PyObject_HEAD
    Timing timing;
    PyObject *epoll;
    PyObject *wait; /* its method `poll` */
} Poll;

static PyTypeObject *poll_type;

static PyObject *wait_here(PyObject *wait, PyObject *const *args, Py_ssize_t given, PyObject *kwnames)
{
    return call(wait, args, (size_t)given, kwnames);
}

static PyObject *timed_poll(Poll *self, PyObject *const *args, Py_ssize_t given, PyObject *kwnames)
{
    PyObject *timeout = given > 0 ? args[0] : Py_None;
    return timed_wait(&self->timing, wait_here, self->wait, args, given, kwnames, timeout);
}

/* --- what is the object's own ---------------------------------------------------------------------------------------- */

static PyObject *forward(Poll *self, const char *name, PyObject *args, PyObject *kwargs)
{
    PyObject *method = PyObject_GetAttrString(self->epoll, name);
    PyObject *result = method != NULL ? PyObject_Call(method, args, kwargs) : NULL;
    Py_XDECREF(method);
    return result;
}

#define FORWARD(name)                                                              \
    static PyObject *poll_##name(Poll *self, PyObject *args, PyObject *kwargs)     \
    {                                                                              \
        return forward(self, #name, args, kwargs);                                 \
    }

FORWARD(register)
FORWARD(unregister)
FORWARD(modify)
FORWARD(close)
FORWARD(fileno)

static PyObject *get_closed(Poll *self, void *closure)
{
    return PyObject_GetAttrString(self->epoll, "closed");
}

#define METHOD(name) {#name, (PyCFunction)(void (*)(void))poll_##name, METH_VARARGS | METH_KEYWORDS, NULL}

static PyMethodDef poll_methods[] = {
    {"poll", (PyCFunction)(void (*)(void))timed_poll, METH_FASTCALL | METH_KEYWORDS, NULL},
    METHOD(register),
    METHOD(unregister),
    METHOD(modify),
    METHOD(close),
    METHOD(fileno),
    {NULL},
};

static PyGetSetDef poll_getset[] = {
    {"closed", (getter)get_closed, NULL, NULL, NULL},
    {NULL},
};

static PyMemberDef poll_members[] = {
    {"epoll", T_OBJECT, offsetof(Poll, epoll), READONLY, NULL},
    {NULL},
};

static PyObject *poll_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *iterations, *creation, *loop, *adopted, *steps, *epoll;
    double limit;
    if (!PyArg_ParseTuple(args, "O!O!OO!OdO", iterations_type, &iterations, creation_type, &creation, &loop,
                          &PyDict_Type, &adopted, &steps, &limit, &epoll))
        return NULL;
    Poll *self = (Poll *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL)
        return NULL;
    self->epoll = Py_NewRef(epoll);
    self->wait = PyObject_GetAttrString(epoll, "poll");
    if (self->wait == NULL
        || set_timing(&self->timing, iterations, creation, loop, adopted, steps, limit, "take_polled") < 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static int poll_traverse(Poll *self, visitproc visit, void *arg)
{
    Py_VISIT(TYPE(self));
    Py_VISIT(self->epoll);
    Py_VISIT(self->wait);
    return visit_timing(&self->timing, visit, arg);
}

static int poll_clear(Poll *self)
{
    Py_CLEAR(self->epoll);
    Py_CLEAR(self->wait);
    clear_timing(&self->timing);
    return 0;
}

static void poll_dealloc(Poll *self)
{
    PyObject_GC_UnTrack(self);
    poll_clear(self);
    free_object((PyObject *)self);
}

static PyType_Spec poll_spec = {
    "openrtc_introspect_core._native._meter.Poll", sizeof(Poll), 0, FLAGS,
    (PyType_Slot[]){
        {Py_tp_new, poll_new},
        {Py_tp_methods, poll_methods},
        {Py_tp_getset, poll_getset},
        {Py_tp_members, poll_members},
        {Py_tp_traverse, poll_traverse},
        {Py_tp_clear, poll_clear},
        {Py_tp_dealloc, poll_dealloc},
        {0, NULL},
    },
};

int add_poll(PyObject *module)
{
    poll_type = add_type(module, &poll_spec, "Poll");
    return poll_type != NULL ? 0 : -1;
}
