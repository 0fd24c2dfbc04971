/* The callback of the garbage collector: it returns at once from what is short. gc_monitor.py says what it does, and
   does what is rare. */

#include "replaced.h"

#define NOTABLE_COLLECTION_S 0.0002 /* seconds, as in gc_monitor.py */

typedef struct {
    REPLACED_HEAD
    PyObject *monitor;
    Ledger clock;            /* of no ledger: only its clock and what belongs to it is used */
    double began;            /* NaN: no collection is under way */
    unsigned long thread_id; /* of the collection under way */
} Collections;

#define FULL 2 /* the generation of a full collection, as in gc_monitor.py */

static PyObject *name_failed, *name_full_begins, *name_generation;

/* Take the error that is set. A fault of ours is reported, and None is returned; an interrupt is raised again. */
static PyObject *report(Collections *self)
{
    PyObject *error = fetch_error();
    if (error != NULL && PyErr_GivenExceptionMatches(error, PyExc_Exception)) {
        PyObject *is_interrupt = PyObject_CallMethodObjArgs(self->monitor, name_failed, error, NULL);
        Py_XDECREF(is_interrupt);
        if (is_interrupt != Py_True) { /* NULL: what reports faults has failed; the collector reports that, as in Python */
            Py_DECREF(error);
            return is_interrupt != NULL ? Py_NewRef(Py_None) : NULL;
        }
    }
    raise_again(error);
    return NULL;
}

/* Have the monitor find out who began a full collection. Return 0, or -1 with an error set. */
static int begin_collection(Collections *self, PyObject *info)
{
    PyObject *generation = PyObject_GetItem(info, name_generation);
    long number = generation != NULL ? PyLong_AsLong(generation) : -1;
    Py_XDECREF(generation);
    if (number == -1 && PyErr_Occurred())
        return -1;
    return number == FULL ? drop(PyObject_CallMethodObjArgs(self->monitor, name_full_begins, NULL)) : 0;
}

/* End the collection under way. Return 0, or -1 with an error set. */
static int end_collection(Collections *self, unsigned long thread_id, double now, PyObject *info)
{
    double began = self->began;
    if (isnan(began) || self->thread_id != thread_id)
        return 0;
    self->began = NAN;
    if (now - began <= NOTABLE_COLLECTION_S)
        return 0;
    return drop(PyObject_CallMethod(self->monitor, "collected", "ddOk", began, now, info, thread_id));
}

static PyObject *called(Collections *self, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    if (ARGUMENTS(nargsf) != 2 || kwnames != NULL) {
        PyErr_SetString(PyExc_TypeError, "a callback of the collector takes a phase and a dictionary");
        return NULL;
    }
    double now = read_clock(&self->clock);
    if (now == -1.0 && PyErr_Occurred())
        return report(self);
    unsigned long thread_id = PyThread_get_thread_ident();
    if (PyUnicode_CompareWithASCIIString(args[0], "start") == 0) {
        self->began = now;
        self->thread_id = thread_id;
        return begin_collection(self, args[1]) == 0 ? Py_NewRef(Py_None) : report(self);
    }
    return end_collection(self, thread_id, now, args[1]) == 0 ? Py_NewRef(Py_None) : report(self);
}

static PyObject *collections_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *monitor, *clock;
    if (!PyArg_ParseTuple(args, "OO", &monitor, &clock))
        return NULL;
    Collections *self = (Collections *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL)
        return NULL;
    self->vectorcall_ = (vectorcall)called;
    self->monitor = Py_NewRef(monitor);
    self->clock.clock = Py_NewRef(clock);
    self->began = NAN;
    return (PyObject *)self;
}

static int collections_traverse(Collections *self, visitproc visit, void *arg)
{
    Py_VISIT(TYPE(self));
    Py_VISIT(self->attributes);
    Py_VISIT(self->monitor);
    Py_VISIT(self->clock.clock);
    return 0;
}

/* The collector itself may call it at any time, so it keeps what it needs; the monitor's dictionary is cleared. */
static void collections_dealloc(Collections *self)
{
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->attributes);
    Py_CLEAR(self->monitor);
    Py_CLEAR(self->clock.clock);
    free_object((PyObject *)self);
}

static PyMemberDef collections_members[] = {
    REPLACED_MEMBERS(Collections)
    {"thread_id", T_ULONG, offsetof(Collections, thread_id), READONLY, NULL},
    {NULL},
};

static PyGetSetDef collections_getset[] = {
    OPTIONAL_SECONDS(Collections, began),
    {NULL},
};

static PyType_Spec collections_spec = {
    "openrtc_introspect_core._native._meter.Collections", sizeof(Collections), 0, FLAGS | HAS_VECTORCALL,
    (PyType_Slot[]){
        {Py_tp_new, collections_new},
        {Py_tp_members, collections_members},
        {Py_tp_getset, collections_getset},
        {Py_tp_call, call_replaced},
        {Py_tp_traverse, collections_traverse},
        {Py_tp_dealloc, collections_dealloc},
        {0, NULL},
    },
};

int add_collections(PyObject *module)
{
    name_failed = PyUnicode_InternFromString("failed");
    name_full_begins = PyUnicode_InternFromString("full_begins");
    name_generation = PyUnicode_InternFromString("generation");
    return add_type(module, &collections_spec, "Collections") != NULL && !PyErr_Occurred() ? 0 : -1;
}
