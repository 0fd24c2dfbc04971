/* `create_task` of a loop, while attached: task_creation.py says what it does, and does what is rare. */

#include "replaced.h"

#define MOST_ARGUMENTS 8

typedef struct {
    REPLACED_HEAD
    PyObject *loop_type;   /* its `create_task` is called, as patched at the time */
    PyObject *below;       /* the instance's own `create_task` before; None: it had none */
    PyObject *get_factory; /* a bound method; None: the loop has the attribute `_task_factory` */
    PyObject *slowly;      /* the method in Python */
    Creation *creation;
    Ledger *ledger;
} CreateTask;

static PyTypeObject *create_task_type, *task_type;
static PyObject *name_context, *name_create_task, *name_meter_outermost, *name_task_factory;
static Py_ssize_t task_size; /* of a task of asyncio's, in bytes */
static Py_ssize_t coro_at;   /* where a task has its coroutine, in bytes; 0: not known */

/* Return the place where a task has the coroutine that it drives. NULL: it drives another, or the place is not known. */
static PyObject **place_of(PyObject *task, PyObject *coro)
{
    if (task_type == NULL || !PyObject_TypeCheck(task, task_type))
        return NULL;
    Py_ssize_t found = coro_at;
    for (Py_ssize_t at = sizeof(PyObject); coro_at == 0 && at < task_size; at += sizeof(PyObject *)) {
        if (*(PyObject **)((char *)task + at) != coro)
            continue;
        if (found != 0)
            return NULL; /* which of the two is it? */
        found = at;
    }
    if (found == 0 || *(PyObject **)((char *)task + found) != coro)
        return NULL;
    coro_at = found;
    return (PyObject **)((char *)task + found);
}

/* Return whether the loop's factory is the one that is known. An error means that it is not. */
static int knows_factory(CreateTask *self, PyObject *loop)
{
    PyObject *factory = self->get_factory == Py_None ? PyObject_GetAttr(loop, name_task_factory)
                                                     : call(self->get_factory, NULL, 0, NULL);
    if (factory == NULL) {
        PyErr_Clear();
        return 0;
    }
    int known = factory == self->creation->known_factory;
    Py_DECREF(factory);
    return known;
}

/* Return the account that a new task counts for, a new reference; NULL, without an error set, if it is not at hand:
   the session's own step is not under way, or the task gets a context of its own. */
static PyObject *find_account(CreateTask *self, PyObject *const *args, PyObject *kwnames)
{
    Ledger *ledger = self->ledger;
    PyObject *session, *account = NULL;
    Py_ssize_t given = kwnames != NULL ? PyTuple_Size(kwnames) : 0;

    for (Py_ssize_t index = 0; index < given; index++)
        if (args[2 + index] != Py_None && PyUnicode_Compare(PyTuple_GetItem(kwnames, index), name_context) == 0)
            return NULL;
    if (context_var_get(ledger->binding, Py_None, &session) < 0) {
        PyErr_Clear();
        return NULL;
    }
    PyObject *holder = ledger->holder;
    if (session == Py_None)
        account = ledger->untagged;
    else if (holder != NULL && TYPE(holder) == TYPE(ledger->untagged) && ((Account *)holder)->session == session)
        account = holder; /* an account itself, not a suspended step that stands in for one */
    Py_DECREF(session);
    return Py_XNewRef(account);
}

static PyObject *create_task(CreateTask *self, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    Py_ssize_t positional = ARGUMENTS(nargsf), given = positional + (kwnames != NULL ? PyTuple_Size(kwnames) : 0);
    PyObject *account;
    if (positional != 2 || given > MOST_ARGUMENTS || !self->creation->direct || TYPE(args[1]) != coroutine_type
        || !knows_factory(self, args[0]) || (account = find_account(self, args, kwnames)) == NULL)
        return call(self->slowly, args, (size_t)positional, kwnames);

    PyObject *arguments[MOST_ARGUMENTS];
    for (Py_ssize_t index = 0; index < given; index++)
        arguments[index] = args[index];
    PyObject *coro = arguments[1] = metered_coroutine(args[1], self->ledger, (Account *)account);
    Py_DECREF(account);
    if (coro == NULL)
        return NULL;
    PyObject *task;
    if (self->below != Py_None) {
        task = call(self->below, arguments + 1, 1, kwnames);
    } else {
        PyObject *function = PyObject_GetAttr(self->loop_type, name_create_task);
        task = function != NULL ? call(function, arguments, 2, kwnames) : NULL;
        Py_XDECREF(function);
    }
    if (task != NULL && place_of(task, coro) == NULL
        && drop(PyObject_CallMethodObjArgs((PyObject *)self->creation, name_meter_outermost, task, coro, NULL)) < 0) {
        PyObject *interrupt = take_fault((PyObject *)self->ledger);
        if (interrupt != NULL) {
            raise_again(interrupt);
            Py_CLEAR(task);
        }
    }
    Py_DECREF(coro);
    return task;
}

static PyObject *replace_coro(PyObject *module, PyObject *args)
{
    PyObject *task, *driven, *by;
    if (!PyArg_ParseTuple(args, "OOO", &task, &driven, &by))
        return NULL;
    PyObject **place = place_of(task, driven);
    if (place != NULL)
        REPLACE(*place, Py_NewRef(by));
    return PyBool_FromLong(place != NULL);
}

static PyMethodDef functions[] = {
    {"replace_coro", replace_coro, METH_VARARGS, "Have a task drive another coroutine. Return whether it does now."},
    {NULL},
};

/* Find out what a task of asyncio's is, where it is written in C. Return 0, or -1 with an error set. */
static int find_task_type(void)
{
    PyObject *module = PyImport_ImportModule("_asyncio");
    PyObject *type = module != NULL ? PyObject_GetAttrString(module, "Task") : NULL;
    PyObject *size = type != NULL ? PyObject_GetAttrString(type, "__basicsize__") : NULL;
    task_size = size != NULL ? PyLong_AsSsize_t(size) : 0;
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_ImportError))
        return -1;
    PyErr_Clear();
    task_type = (PyTypeObject *)type;
    Py_XDECREF(module);
    Py_XDECREF(size);
    return 0;
}

static PyObject *create_task_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *creation, *ledger, *loop_type, *below, *get_factory, *slowly;
    if (!PyArg_ParseTuple(args, "O!O!OOOO", creation_type, &creation, ledger_type, &ledger, &loop_type, &below,
                          &get_factory, &slowly))
        return NULL;
    CreateTask *self = (CreateTask *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL)
        return NULL;
    self->vectorcall_ = (vectorcall)create_task;
    self->creation = (Creation *)Py_NewRef(creation);
    self->ledger = (Ledger *)Py_NewRef(ledger);
    self->loop_type = Py_NewRef(loop_type);
    self->below = Py_NewRef(below);
    self->get_factory = Py_NewRef(get_factory);
    self->slowly = Py_NewRef(slowly);
    return (PyObject *)self;
}

static int create_task_traverse(CreateTask *self, visitproc visit, void *arg)
{
    Py_VISIT(TYPE(self));
    Py_VISIT(self->attributes);
    Py_VISIT(self->creation);
    Py_VISIT(self->ledger);
    Py_VISIT(self->loop_type);
    Py_VISIT(self->below);
    Py_VISIT(self->get_factory);
    Py_VISIT(self->slowly);
    return 0;
}

static int create_task_clear(CreateTask *self)
{
    Py_CLEAR(self->attributes);
    Py_CLEAR(self->creation);
    Py_CLEAR(self->ledger);
    Py_CLEAR(self->loop_type);
    Py_CLEAR(self->below);
    Py_CLEAR(self->get_factory);
    Py_CLEAR(self->slowly);
    return 0;
}

static void create_task_dealloc(CreateTask *self)
{
    PyObject_GC_UnTrack(self);
    create_task_clear(self);
    free_object((PyObject *)self);
}

static PyMemberDef create_task_members[] = {
    REPLACED_MEMBERS(CreateTask)
    {NULL},
};

static PyType_Spec create_task_spec = {
    "openrtc_introspect_core._native._meter.CreateTask", sizeof(CreateTask), 0, FLAGS | HAS_VECTORCALL,
    (PyType_Slot[]){
        {Py_tp_new, create_task_new},
        {Py_tp_members, create_task_members},
        {Py_tp_call, call_replaced},
        {Py_tp_getattro, PyObject_GenericGetAttr},
        {Py_tp_setattro, PyObject_GenericSetAttr},
        {Py_tp_traverse, create_task_traverse},
        {Py_tp_clear, create_task_clear},
        {Py_tp_dealloc, create_task_dealloc},
        {0, NULL},
    },
};

int add_create_task(PyObject *module)
{
    name_context = PyUnicode_InternFromString("context");
    name_create_task = PyUnicode_InternFromString("create_task");
    name_meter_outermost = PyUnicode_InternFromString("meter_outermost");
    name_task_factory = PyUnicode_InternFromString("_task_factory");
    create_task_type = add_type(module, &create_task_spec, "CreateTask");
    return create_task_type != NULL && find_task_type() == 0 && !PyErr_Occurred() ? PyModule_AddFunctions(module, functions)
                                                                              : -1;
}
