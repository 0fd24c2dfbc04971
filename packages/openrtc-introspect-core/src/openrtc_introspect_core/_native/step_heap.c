/* Memory by session, at the switches of one ledger, and the begin and the end of a step that is more than timed.

   step_heap.py says what the former does, and ledger.py what the latter do: what is rare is done there. */

#include "meter.h"

typedef struct {
    PyObject_HEAD
    PyObject *reader, *exited_scope;
    long long at, charged, charged_elsewhere;
} StepHeap;

static PyTypeObject *step_heap_type;
static PyObject *name_begin_slow_path, *name_period;

/* --- the switches ------------------------------------------------------------------------------------------------- */

/* Return 0 and the reader, a new reference, which is NULL if memory is not measured; -1 with an error set. Another
   thread may switch the reader off meanwhile. */
static int find_reader(StepHeap *self, HeapReader **reader)
{
    *reader = NULL;
    if (IS_NONE(self->reader))
        return 0;
    if (!PyObject_TypeCheck(self->reader, reader_type)) {
        PyErr_SetString(PyExc_TypeError, "this is no reader of the bytes in use");
        return -1;
    }
    *reader = (HeapReader *)Py_NewRef(self->reader);
    return 0;
}

static int open_step(StepHeap *self)
{
    HeapReader *reader;
    long long in_use;
    if (find_reader(self, &reader) < 0)
        return -1;
    if (reader == NULL)
        return 0;
    int status = draw(reader);
    if (status > 0 && (status = read_heap(reader, &in_use)) == 0)
        self->at = in_use - self->charged_elsewhere;
    Py_DECREF((PyObject *)reader);
    return status;
}

static int charge_holder(StepHeap *self, PyObject *holder)
{
    HeapReader *reader;
    long long in_use;
    if (find_reader(self, &reader) < 0)
        return -1;
    if (reader == NULL || !reader->sampled) {
        Py_XDECREF((PyObject *)reader);
        return 0;
    }
    int status = read_heap(reader, &in_use);
    if (status == 0) {
        long long now = in_use - self->charged_elsewhere, change = now - self->at;
        PyObject *account = !IS_NONE(self->exited_scope) && change < 0 ? self->exited_scope : holder;
        self->at = now;
        self->charged += change;
        ((Account *)account)->heap += reader->weight * change;
    }
    Py_DECREF((PyObject *)reader);
    return status;
}

static int close_step(StepHeap *self, PyObject *holder)
{
    int status = charge_holder(self, holder);
    REPLACE(self->exited_scope, NULL);
    return status;
}

/* --- a step that is more than timed ------------------------------------------------------------------------------- */

/* Return 1 if every step is timed, else 0; -1 with an error set. */
static int every_step_is_timed(Ledger *ledger)
{
    PyObject *period = PyObject_GetAttr(ledger->sampling, name_period);
    long long value = period != NULL ? PyLong_AsLongLong(period) : -1;
    Py_XDECREF(period);
    return value == -1 && PyErr_Occurred() ? -1 : value == 1;
}

int begin_slow_path(Ledger *ledger, PyObject *outside)
{
    StepHeap *heap = (StepHeap *)ledger->heap;
    int usual = IS_NONE(outside) && IS_NONE(ledger->holder) && heap != NULL && TYPE(heap) == step_heap_type
        && ledger->sampling != NULL ? every_step_is_timed(ledger) : 0;
    if (usual < 0)
        return -1;
    if (!usual)
        return drop(PyObject_CallMethodObjArgs((PyObject *)ledger, name_begin_slow_path, outside, NULL));
    if (open_step(heap) < 0)
        return -1;
    ledger->weight = 1;
    ledger->step_since = NAN;
    ledger->slow_path = !IS_NONE(heap->reader);
    return 0;
}

int end_slow_path(Ledger *ledger, PyObject *holder, double seconds)
{
    StepHeap *heap = (StepHeap *)ledger->heap;
    if (ledger->weight != 1 || TYPE(holder) != TYPE(ledger->untagged) || heap == NULL || TYPE(heap) != step_heap_type)
        return drop(PyObject_CallMethod((PyObject *)ledger, "end_slow_path", "Od", holder, seconds));
    return IS_NONE(heap->reader) ? 0 : close_step(heap, holder);
}

/* --- the parts of a step, see divided_step.py --------------------------------------------------------------------- */

int is_one_more_part(Ledger *ledger, PyObject *outside)
{
    StepHeap *heap = (StepHeap *)ledger->heap;
    return TYPE(outside) == TYPE(ledger->untagged) && !isnan(ledger->step_since) && ledger->parts != NULL
        && PyDict_Check(ledger->parts) && heap != NULL && TYPE(heap) == step_heap_type && IS_NONE(heap->reader);
}

int add_part(Ledger *ledger, PyObject *holder, double seconds)
{
    PyObject *before = PyDict_GetItemWithError(ledger->parts, holder);
    double so_far = before != NULL ? PyFloat_AsDouble(before) : 0.0;
    PyObject *total = PyErr_Occurred() ? NULL : PyFloat_FromDouble(so_far + seconds);
    int status = total != NULL ? PyDict_SetItem(ledger->parts, holder, total) : -1;
    Py_XDECREF(total);
    return status;
}

/* --- the type ----------------------------------------------------------------------------------------------------- */

static PyObject *none(int status)
{
    return status == 0 ? Py_NewRef(Py_None) : NULL;
}

static PyObject *heap_open(StepHeap *self, PyObject *args)
{
    return none(open_step(self));
}

/* Return 0 if it is an account; -1 with an error set. */
static int check_account(PyObject *holder)
{
    if (PyObject_TypeCheck(holder, account_type))
        return 0;
    PyErr_SetString(PyExc_TypeError, "only an account can be charged");
    return -1;
}

static PyObject *heap_charge(StepHeap *self, PyObject *holder)
{
    return none(check_account(holder) < 0 ? -1 : charge_holder(self, holder));
}

static PyObject *heap_close(StepHeap *self, PyObject *holder)
{
    return none(check_account(holder) < 0 ? -1 : close_step(self, holder));
}

static PyObject *get_exited_scope(StepHeap *self, void *closure)
{
    return Py_NewRef(self->exited_scope != NULL ? self->exited_scope : Py_None);
}

static int set_exited_scope(StepHeap *self, PyObject *value, void *closure)
{
    if (!IS_NONE(value) && check_account(value) < 0)
        return -1;
    REPLACE(self->exited_scope, IS_NONE(value) ? NULL : Py_NewRef(value));
    return 0;
}

static int heap_traverse(StepHeap *self, visitproc visit, void *arg)
{
    Py_VISIT(TYPE(self));
    Py_VISIT(self->reader);
    Py_VISIT(self->exited_scope);
    return 0;
}

static int heap_clear(StepHeap *self)
{
    Py_CLEAR(self->reader);
    Py_CLEAR(self->exited_scope);
    return 0;
}

static void heap_dealloc(StepHeap *self)
{
    PyObject_GC_UnTrack(self);
    heap_clear(self);
    free_object((PyObject *)self);
}

static PyMethodDef heap_methods[] = {
    {"open", (PyCFunction)heap_open, METH_NOARGS, "Begin a step."},
    {"charge", (PyCFunction)heap_charge, METH_O, "Charge an account with the bytes since the last switch."},
    {"close", (PyCFunction)heap_close, METH_O, "End a step that the account had last."},
    {NULL},
};

static PyMemberDef heap_members[] = {
    {"reader", T_OBJECT, offsetof(StepHeap, reader), 0, NULL},
    {"at", T_LONGLONG, offsetof(StepHeap, at), 0, NULL},
    {"charged", T_LONGLONG, offsetof(StepHeap, charged), 0, NULL},
    {"charged_elsewhere", T_LONGLONG, offsetof(StepHeap, charged_elsewhere), 0, NULL},
    {NULL},
};

static PyGetSetDef heap_getset[] = {
    {"exited_scope", (getter)get_exited_scope, (setter)set_exited_scope, NULL, NULL},
    {NULL},
};

static PyType_Spec heap_spec = {
    "openrtc_introspect_core._native._meter.StepHeap", sizeof(StepHeap), 0, FLAGS,
    (PyType_Slot[]){
        {Py_tp_methods, heap_methods},
        {Py_tp_members, heap_members},
        {Py_tp_getset, heap_getset},
        {Py_tp_traverse, heap_traverse},
        {Py_tp_clear, heap_clear},
        {Py_tp_dealloc, heap_dealloc},
        {0, NULL},
    },
};

int add_step_heap(PyObject *module)
{
    name_begin_slow_path = PyUnicode_InternFromString("begin_slow_path");
    name_period = PyUnicode_InternFromString("period");
    step_heap_type = add_type(module, &heap_spec, "StepHeap");
    return step_heap_type != NULL && !PyErr_Occurred() ? 0 : -1;
}
