/* `select` of a loop's selector, while attached: see iteration.c. */

#include "replaced.h"

typedef struct {
    REPLACED_HEAD
    Timing timing;
    PyObject *below;     /* the method that waits: a function if `takes_selector`, else what is called without it */
    char takes_selector;
} Select;

static PyTypeObject *select_type;

static PyObject *wait_below(PyObject *self, PyObject *const *args, Py_ssize_t given, PyObject *kwnames)
{
    if (((Select *)self)->takes_selector)
        return call(((Select *)self)->below, args, (size_t)given, kwnames);
    return call(((Select *)self)->below, args + 1, (size_t)(given - 1), kwnames);
}

static PyObject *timed_select(Select *self, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    Py_ssize_t given = ARGUMENTS(nargsf), all = given + (kwnames != NULL ? PyTuple_Size(kwnames) : 0);
    if (given < 1) {
        PyErr_SetString(PyExc_TypeError, "select() takes a selector");
        return NULL;
    }
    return timed_wait(&self->timing, wait_below, (PyObject *)self, args, given, kwnames, all > 1 ? args[1] : Py_None);
}

static PyObject *select_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *iterations, *creation, *loop, *adopted, *steps, *below;
    int takes_selector;
    double limit;
    if (!PyArg_ParseTuple(args, "O!O!OO!OdOp", iterations_type, &iterations, creation_type, &creation, &loop,
                          &PyDict_Type, &adopted, &steps, &limit, &below, &takes_selector))
        return NULL;
    Select *self = (Select *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL)
        return NULL;
    self->vectorcall_ = (vectorcall)timed_select;
    self->below = Py_NewRef(below);
    self->takes_selector = (char)takes_selector;
    if (set_timing(&self->timing, iterations, creation, loop, adopted, steps, limit, "take_selected") < 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static int select_traverse(Select *self, visitproc visit, void *arg)
{
    Py_VISIT(TYPE(self));
    Py_VISIT(self->attributes);
    Py_VISIT(self->below);
    return visit_timing(&self->timing, visit, arg);
}

static int select_clear(Select *self)
{
    Py_CLEAR(self->attributes);
    Py_CLEAR(self->below);
    clear_timing(&self->timing);
    return 0;
}

static void select_dealloc(Select *self)
{
    PyObject_GC_UnTrack(self);
    select_clear(self);
    free_object((PyObject *)self);
}

static PyMemberDef select_members[] = {
    REPLACED_MEMBERS(Select)
    {NULL},
};

static PyType_Spec select_spec = {
    "openrtc_introspect_core._native._meter.Select", sizeof(Select), 0, FLAGS | HAS_VECTORCALL,
    (PyType_Slot[]){
        {Py_tp_new, select_new},
        {Py_tp_members, select_members},
        {Py_tp_call, call_replaced},
        {Py_tp_getattro, PyObject_GenericGetAttr},
        {Py_tp_setattro, PyObject_GenericSetAttr},
        {Py_tp_traverse, select_traverse},
        {Py_tp_clear, select_clear},
        {Py_tp_dealloc, select_dealloc},
        {0, NULL},
    },
};

int add_select(PyObject *module)
{
    select_type = add_type(module, &select_spec, "Select");
    return select_type != NULL ? 0 : -1;
}
