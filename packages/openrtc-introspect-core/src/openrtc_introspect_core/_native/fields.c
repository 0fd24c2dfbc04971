/* The fields of accounts, ledgers, iterations and task creation, for the classes in Python to inherit. */

#include "meter.h"

PyTypeObject *account_type, *ledger_type, *iterations_type, *creation_type;

PyObject *get_seconds(PyObject *self, void *offset)
{
    double value = *(double *)((char *)self + (size_t)offset);
    return isnan(value) ? Py_NewRef(Py_None) : PyFloat_FromDouble(value);
}

int set_seconds(PyObject *self, PyObject *value, void *offset)
{
    double seconds = IS_NONE(value) ? NAN : PyFloat_AsDouble(value);
    if (isnan(seconds) && PyErr_Occurred())
        return -1;
    *(double *)((char *)self + (size_t)offset) = seconds;
    return 0;
}

/* --- accounts ------------------------------------------------------------------------------------------------------- */

static PyMemberDef account_members[] = {
    {"session", T_OBJECT, offsetof(Account, session), 0, NULL},
    {"busy", T_DOUBLE, offsetof(Account, busy), 0, NULL},
    {"last_step", T_DOUBLE, offsetof(Account, last_step), 0, NULL},
    {"steps", T_LONGLONG, offsetof(Account, steps), 0, NULL},
    {"heap", T_LONGLONG, offsetof(Account, heap), 0, NULL},
    {"tasks", T_LONGLONG, offsetof(Account, tasks), 0, NULL},
    {"label", T_OBJECT, offsetof(Account, label), 0, NULL},
    {NULL},
};

static int account_traverse(Account *self, visitproc visit, void *arg)
{
    Py_VISIT(TYPE(self));
    Py_VISIT(self->session);
    Py_VISIT(self->label);
    return 0;
}

static int account_clear(Account *self)
{
    Py_CLEAR(self->label);
    Py_CLEAR(self->session);
    return 0;
}

static void account_dealloc(Account *self)
{
    PyObject_GC_UnTrack(self);
    account_clear(self);
    free_object((PyObject *)self);
}

/* --- ledgers -------------------------------------------------------------------------------------------------------- */

static PyMemberDef ledger_members[] = {
    {"clock", T_OBJECT, offsetof(Ledger, clock), 0, NULL},
    {"get", T_OBJECT, offsetof(Ledger, get), 0, NULL},
    {"binding", T_OBJECT, offsetof(Ledger, binding), 0, NULL},
    {"holder", T_OBJECT, offsetof(Ledger, holder), 0, NULL},
    {"unsampled", T_OBJECT, offsetof(Ledger, unsampled), 0, NULL},
    {"untagged", T_OBJECT, offsetof(Ledger, untagged), 0, NULL},
    {"holder_since", T_DOUBLE, offsetof(Ledger, holder_since), 0, NULL},
    {"steps_until_sample", T_LONGLONG, offsetof(Ledger, steps_until_sample), 0, NULL},
    {"slow_path", T_BOOL, offsetof(Ledger, slow_path), 0, NULL},
    {"switched", T_BOOL, offsetof(Ledger, switched), 0, NULL},
    {"heap", T_OBJECT, offsetof(Ledger, heap), 0, NULL},
    {"sampling", T_OBJECT, offsetof(Ledger, sampling), 0, NULL},
    {"parts", T_OBJECT, offsetof(Ledger, parts), 0, NULL},
    {"weight", T_LONGLONG, offsetof(Ledger, weight), 0, NULL},
    {NULL},
};

static PyGetSetDef ledger_getset[] = {
    OPTIONAL_SECONDS(Ledger, idle),
    OPTIONAL_SECONDS(Ledger, step_since),
    {NULL},
};

static int ledger_traverse(Ledger *self, visitproc visit, void *arg)
{
    Py_VISIT(TYPE(self));
    Py_VISIT(self->clock);
    Py_VISIT(self->get);
    Py_VISIT(self->binding);
    Py_VISIT(self->holder);
    Py_VISIT(self->unsampled);
    Py_VISIT(self->untagged);
    Py_VISIT(self->heap);
    Py_VISIT(self->sampling);
    Py_VISIT(self->parts);
    return 0;
}

static int ledger_clear(Ledger *self)
{
    Py_CLEAR(self->clock);
    Py_CLEAR(self->get);
    Py_CLEAR(self->binding);
    Py_CLEAR(self->holder);
    Py_CLEAR(self->unsampled);
    Py_CLEAR(self->untagged);
    Py_CLEAR(self->heap);
    Py_CLEAR(self->sampling);
    Py_CLEAR(self->parts);
    return 0;
}

static void ledger_dealloc(Ledger *self)
{
    PyObject_GC_UnTrack(self);
    ledger_clear(self);
    free_object((PyObject *)self);
}

/* --- iterations ------------------------------------------------------------------------------------------------------ */

static PyMemberDef iterations_members[] = {
    {"ledger", T_OBJECT, offsetof(Iterations, ledger), 0, NULL},
    {"after_block", T_OBJECT, offsetof(Iterations, after_block), 0, NULL},
    {"sample", T_OBJECT, offsetof(Iterations, sample), 0, NULL},
    {"waiting_since", T_DOUBLE, offsetof(Iterations, waiting_since), 0, NULL},
    {"count", T_LONGLONG, offsetof(Iterations, count), 0, NULL},
    {"wakes_watchdog", T_BOOL, offsetof(Iterations, wakes_watchdog), 0, NULL},
    {NULL},
};

static PyGetSetDef iterations_getset[] = {
    OPTIONAL_SECONDS(Iterations, busy_since),
    {NULL},
};

static int iterations_traverse(Iterations *self, visitproc visit, void *arg)
{
    Py_VISIT(TYPE(self));
    Py_VISIT(self->ledger);
    Py_VISIT(self->after_block);
    Py_VISIT(self->sample);
    return 0;
}

static int iterations_clear(Iterations *self)
{
    Py_CLEAR(self->ledger);
    Py_CLEAR(self->after_block);
    Py_CLEAR(self->sample);
    return 0;
}

static void iterations_dealloc(Iterations *self)
{
    PyObject_GC_UnTrack(self);
    iterations_clear(self);
    free_object((PyObject *)self);
}

/* --- task creation --------------------------------------------------------------------------------------------------- */

static PyMemberDef creation_members[] = {
    {"known_factory", T_OBJECT, offsetof(Creation, known_factory), 0, NULL},
    {"direct", T_BOOL, offsetof(Creation, direct), 0, NULL},
    {NULL},
};

static int creation_traverse(Creation *self, visitproc visit, void *arg)
{
    Py_VISIT(TYPE(self));
    Py_VISIT(self->known_factory);
    return 0;
}

static int creation_clear(Creation *self)
{
    Py_CLEAR(self->known_factory);
    return 0;
}

static void creation_dealloc(Creation *self)
{
    PyObject_GC_UnTrack(self);
    creation_clear(self);
    free_object((PyObject *)self);
}

/* --- their types ------------------------------------------------------------------------------------------------------ */

#define SPEC(type, kind, ...)                                                                              \
    {                                                                                                      \
        "openrtc_introspect_core._native._meter." #type "Fields", sizeof(type), 0, FLAGS | Py_TPFLAGS_BASETYPE, \
            (PyType_Slot[])                                                                                \
        {                                                                                                  \
            {Py_tp_members, kind##_members}, {Py_tp_traverse, kind##_traverse}, {Py_tp_clear, kind##_clear}, \
                {Py_tp_dealloc, kind##_dealloc}, __VA_ARGS__ {0, NULL},                                    \
        }                                                                                                  \
    }

static PyType_Spec account_spec = SPEC(Account, account, );
static PyType_Spec ledger_spec = SPEC(Ledger, ledger, {Py_tp_getset, ledger_getset}, );
static PyType_Spec iterations_spec = SPEC(Iterations, iterations, {Py_tp_getset, iterations_getset}, );
static PyType_Spec creation_spec = SPEC(Creation, creation, );

int add_fields(PyObject *module)
{
    account_type = add_type(module, &account_spec, "AccountFields");
    ledger_type = add_type(module, &ledger_spec, "LedgerFields");
    iterations_type = add_type(module, &iterations_spec, "IterationsFields");
    creation_type = add_type(module, &creation_spec, "CreationFields");
    return account_type && ledger_type && iterations_type && creation_type ? 0 : -1;
}
