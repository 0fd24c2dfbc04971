/* The extension module: what it needs of Python, and what it gives to it. */

#include "replaced.h"
#ifndef _WIN32
#include <dlfcn.h>
#endif

#ifndef METER_SOURCES /* the checksum of these files, see sources.py */
#define METER_SOURCES ""
#endif

int (*context_var_get)(PyObject *var, PyObject *default_value, PyObject **value);
vectorcall call;
static PyObject *(*vectorcall_call)(PyObject *callable, PyObject *args, PyObject *kwargs);
PyTypeObject *coroutine_type;
void (*enter_tracing)(PyThreadState *thread), (*leave_tracing)(PyThreadState *thread);
static PyObject *name_failed;

void free_object(PyObject *self)
{
    PyTypeObject *type = TYPE(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

PyObject *fetch_error(void)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (error != NULL && traceback != NULL)
        PyException_SetTraceback(error, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return error;
}

void raise_again(PyObject *error)
{
    if (error == NULL)
        return;
    PyErr_Restore(Py_NewRef((PyObject *)TYPE(error)), error, PyException_GetTraceback(error));
}

PyObject *take_fault(PyObject *owner)
{
    PyObject *error = fetch_error();
    if (error == NULL || !PyErr_GivenExceptionMatches(error, PyExc_Exception))
        return error;
    PyObject *is_interrupt = PyObject_CallMethodObjArgs(owner, name_failed, error, NULL);
    if (is_interrupt == NULL)
        PyErr_Clear();
    Py_XDECREF(is_interrupt);
    if (is_interrupt == Py_True)
        return error;
    Py_DECREF(error);
    return NULL;
}

PyTypeObject *add_type(PyObject *module, PyType_Spec *spec, const char *name)
{
    PyObject *type = PyType_FromSpec(spec);
    if (type != NULL && PyModule_AddObjectRef(module, name, type) < 0)
        Py_CLEAR(type);
    return (PyTypeObject *)type;
}

PyObject *call_replaced(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return vectorcall_call(self, args, kwargs);
}

/* Look up documented functions that every Python since 3.9 exports, and that the stable ABI of 3.11 lacks. Return 0, or -1 with an error set. */
static int find_functions(void)
{
#ifndef _WIN32
    *(void **)&context_var_get = dlsym(RTLD_DEFAULT, "PyContextVar_Get");
    *(void **)&call = dlsym(RTLD_DEFAULT, "PyObject_Vectorcall");
    *(void **)&vectorcall_call = dlsym(RTLD_DEFAULT, "PyVectorcall_Call");
    *(void **)&enter_tracing = dlsym(RTLD_DEFAULT, "PyThreadState_EnterTracing");
    *(void **)&leave_tracing = dlsym(RTLD_DEFAULT, "PyThreadState_LeaveTracing");
#endif
    if (context_var_get != NULL && call != NULL && vectorcall_call != NULL)
        return 0;
    PyErr_SetString(PyExc_ImportError, "this Python does not export PyContextVar_Get, PyObject_Vectorcall, PyVectorcall_Call");
    return -1;
}

static int find_coroutine_type(void)
{
    PyObject *types = PyImport_ImportModule("types");
    coroutine_type = types != NULL ? (PyTypeObject *)PyObject_GetAttrString(types, "CoroutineType") : NULL;
    Py_XDECREF(types);
    return coroutine_type != NULL ? 0 : -1;
}

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "openrtc_introspect_core._native._meter",
    .m_doc = "The step meter in C.",
    .m_size = -1,
};

PyMODINIT_FUNC PyInit__meter(void)
{
    PyObject *module = PyModule_Create(&module_definition);
    if (module == NULL)
        return NULL;
    name_failed = PyUnicode_InternFromString("failed");
    if (name_failed != NULL && find_functions() == 0 && find_coroutine_type() == 0 && find_clock(module) == 0 && add_fields(module) == 0
        && add_coroutine(module) == 0 && add_create_task(module) == 0 && add_iteration(module) == 0 && add_select(module) == 0
        && add_poll(module) == 0 && add_watch(module) == 0 && add_stack(module) == 0 && add_stall_thread(module) == 0 && add_heap_methods(module) == 0
        && add_heap_reader(module) == 0 && add_step_heap(module) == 0
        && add_trio_steps(module) == 0 && add_collections(module) == 0
        && PyModule_AddStringConstant(module, "VERSION", CORE_VERSION) == 0
        && PyModule_AddStringConstant(module, "SOURCES", METER_SOURCES) == 0)
        return module;
    Py_DECREF(module);
    return NULL;
}
