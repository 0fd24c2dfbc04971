/* Readings of the bytes in use at the steps of one loop: heap_reader.py says what they are, and adjusts the sampling.

   What heap_methods.c knows is read without a call of Python; any other method is called. */

#include "meter.h"

#define BUDGET 0.02  /* as in heap_reader.py */
#define WINDOW_S 5.0 /* seconds */
#define CHEAP_S 50e-6 /* seconds */
#define TIMED_ONE_IN 7

PyTypeObject *reader_type;
static PyTypeObject *heap_type;
static PyObject *name_adjust_sampling, *name_append;

/* --- readings with account of them -------------------------------------------------------------------------------- */

static double read_heap_clock(HeapReader *self)
{
    PyObject *now = call(self->clock, NULL, 0, NULL);
    double seconds = now != NULL ? PyFloat_AsDouble(now) : -1.0;
    Py_XDECREF(now);
    return seconds;
}

/* Read, and time the reading. Return -1 with an error set if anything of it fails. */
static long long read_timed(HeapReader *self)
{
    double began = read_heap_clock(self);
    if (began == -1.0 && PyErr_Occurred())
        return -1;
    long long in_use = read_raw(self->raw);
    if (in_use == -1 && PyErr_Occurred())
        return -1;
    double ended = read_heap_clock(self), took_s = ended - began;
    if (ended == -1.0 && PyErr_Occurred())
        return -1;
    PyObject *took = PyFloat_FromDouble(took_s);
    PyObject *done = took != NULL ? PyObject_CallMethodObjArgs(self->times, name_append, took, NULL) : NULL;
    Py_XDECREF(took);
    Py_XDECREF(done);
    if (done == NULL)
        return -1;
    self->untimed = took_s < CHEAP_S ? TIMED_ONE_IN - 1 : 0;
    self->spent_s += took_s * (double)(1 + self->untimed);
    if (self->spent_s > BUDGET * WINDOW_S) { /* at once: the loop is held meanwhile */
        PyObject *now = PyFloat_FromDouble(ended);
        done = now != NULL ? PyObject_CallMethodObjArgs((PyObject *)self->heap, name_adjust_sampling, now, NULL) : NULL;
        Py_XDECREF(now);
        Py_XDECREF(done);
        if (done == NULL)
            return -1;
    }
    return in_use;
}

/* Return 0, or -1 with an error set: it was never told its heap, or the collector has cleared it. */
static int check(HeapReader *self)
{
    if (self->heap != NULL && self->raw != NULL)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "this reader has no heap");
    return -1;
}

int read_heap(HeapReader *self, long long *in_use)
{
    if (check(self) < 0)
        return -1;
    self->due++;
    if (self->untimed > 0) {
        self->untimed--;
        *in_use = read_raw(self->raw);
    } else {
        *in_use = read_timed(self);
    }
    if (*in_use == -1 && PyErr_Occurred())
        return -1;
    if (*in_use < self->last)
        self->given_back += self->last - *in_use;
    self->last = *in_use;
    return 0;
}

int draw(HeapReader *self)
{
    if (check(self) < 0)
        return -1;
    long long period = self->weight = self->heap->sampling_period;
    int sampled = self->heap->on;
    if (sampled && period != 1) {
        PyObject *drawn = call(self->random, NULL, 0, NULL);
        if (drawn == NULL)
            return -1;
        sampled = PyFloat_AsDouble(drawn) * (double)period < 1.0;
        Py_DECREF(drawn);
    }
    self->sampled = (char)sampled;
    if (!sampled)
        self->due += 2;
    return sampled;
}

/* --- the types ---------------------------------------------------------------------------------------------------- */

static PyObject *reader_draw(HeapReader *self, PyObject *none)
{
    int sampled = draw(self);
    return sampled < 0 ? NULL : PyBool_FromLong(sampled);
}

static PyObject *reader_call(HeapReader *self, PyObject *args, PyObject *kwargs)
{
    long long in_use;
    return read_heap(self, &in_use) < 0 ? NULL : PyLong_FromLongLong(in_use);
}

static PyObject *reader_use(HeapReader *self, PyObject *args)
{
    PyObject *heap, *clock;
    if (!PyArg_ParseTuple(args, "O!O", heap_type, &heap, &clock))
        return NULL;
    REPLACE(self->heap, Py_NewRef(heap));
    REPLACE(self->clock, Py_NewRef(clock));
    return Py_NewRef(Py_None);
}

static int reader_traverse(HeapReader *self, visitproc visit, void *arg)
{
    Py_VISIT(TYPE(self));
    Py_VISIT(self->heap);
    Py_VISIT(self->raw);
    Py_VISIT(self->clock);
    Py_VISIT(self->times);
    Py_VISIT(self->random);
    return 0;
}

static int reader_clear(HeapReader *self)
{
    Py_CLEAR(self->heap);
    Py_CLEAR(self->raw);
    Py_CLEAR(self->clock);
    Py_CLEAR(self->times);
    Py_CLEAR(self->random);
    return 0;
}

static void reader_dealloc(HeapReader *self)
{
    PyObject_GC_UnTrack(self);
    reader_clear(self);
    free_object((PyObject *)self);
}

static PyMethodDef reader_methods[] = {
    {"draw", (PyCFunction)reader_draw, METH_NOARGS, "Return whether the step that begins now is read."},
    {"_use", (PyCFunction)reader_use, METH_VARARGS, NULL},
    {NULL},
};

static PyMemberDef reader_members[] = {
    {"raw", T_OBJECT, offsetof(HeapReader, raw), 0, NULL},
    {"times", T_OBJECT, offsetof(HeapReader, times), 0, NULL},
    {"random", T_OBJECT, offsetof(HeapReader, random), 0, NULL},
    {"last", T_LONGLONG, offsetof(HeapReader, last), 0, NULL},
    {"given_back", T_LONGLONG, offsetof(HeapReader, given_back), 0, NULL},
    {"weight", T_LONGLONG, offsetof(HeapReader, weight), 0, NULL},
    {"due", T_LONGLONG, offsetof(HeapReader, due), 0, NULL},
    {"untimed", T_LONGLONG, offsetof(HeapReader, untimed), 0, NULL},
    {"spent_s", T_DOUBLE, offsetof(HeapReader, spent_s), 0, NULL},
    {"sampled", T_BOOL, offsetof(HeapReader, sampled), 0, NULL},
    {NULL},
};

static PyType_Spec reader_spec = {
    "openrtc_introspect_core._native._meter.HeapReaderFields", sizeof(HeapReader), 0, FLAGS | Py_TPFLAGS_BASETYPE,
    (PyType_Slot[]){
        {Py_tp_methods, reader_methods},
        {Py_tp_members, reader_members},
        {Py_tp_call, reader_call},
        {Py_tp_traverse, reader_traverse},
        {Py_tp_clear, reader_clear},
        {Py_tp_dealloc, reader_dealloc},
        {0, NULL},
    },
};

static PyMemberDef heap_members[] = {
    {"sampling_period", T_LONGLONG, offsetof(Heap, sampling_period), 0, NULL},
    {"on", T_BOOL, offsetof(Heap, on), 0, NULL},
    {NULL},
};

static int heap_traverse(Heap *self, visitproc visit, void *arg)
{
    Py_VISIT(TYPE(self));
    return 0;
}

static void heap_dealloc(Heap *self)
{
    PyObject_GC_UnTrack(self);
    free_object((PyObject *)self);
}

static PyType_Spec heap_spec = {
    "openrtc_introspect_core._native._meter.HeapFields", sizeof(Heap), 0, FLAGS | Py_TPFLAGS_BASETYPE,
    (PyType_Slot[]){
        {Py_tp_members, heap_members},
        {Py_tp_traverse, heap_traverse},
        {Py_tp_dealloc, heap_dealloc},
        {0, NULL},
    },
};

int add_heap_reader(PyObject *module)
{
    name_adjust_sampling = PyUnicode_InternFromString("adjust_sampling");
    name_append = PyUnicode_InternFromString("append");
    heap_type = add_type(module, &heap_spec, "HeapFields");
    reader_type = add_type(module, &reader_spec, "HeapReaderFields");
    return heap_type != NULL && reader_type != NULL && !PyErr_Occurred() ? 0 : -1;
}
