/* The methods of reading the bytes in use, each a function for Python and for heap_reader.c: an allocator's account, or
   tracemalloc's. _os/allocators.py says what the accounts are. */

#include "meter.h"
#ifndef _WIN32
#include <dlfcn.h>
#endif

#define ALL_ARENAS "4096" /* MALLCTL_ARENAS_ALL */
#define MAX_NAME 6        /* numbers in a name of jemalloc's */

/* glibc's, since 2.33: the headers of an older one lack it. */
typedef struct {
    size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
} MallInfo2;

typedef struct {
    const char *text;
    size_t numbers[MAX_NAME], length;
} JemallocName;

static MallInfo2 (*mallinfo2)(void);
static int (*find_mallctl)(const char *text, size_t *numbers, size_t *length);
static int (*mallctl)(const size_t *numbers, size_t length, void *old, size_t *old_size, void *new, size_t new_size);
static int (*get_property)(const char *name, size_t *value);
static PyObject *get_traced_memory;

static JemallocName epoch = {"epoch"}, handed_out = {"stats.allocated"};
static JemallocName cached = {"stats.arenas." ALL_ARENAS ".tcache_bytes"};

/* --- glibc -------------------------------------------------------------------------------------------------------- */

static void *find_symbol(const char *name)
{
#ifdef _WIN32
    return NULL;
#else
    return dlsym(RTLD_DEFAULT, name);
#endif
}

static int find_glibc(void)
{
#ifdef __GLIBC__
    *(void **)&mallinfo2 = find_symbol("mallinfo2");
#endif
    return mallinfo2 != NULL;
}

static long long read_glibc(void)
{
    MallInfo2 info = mallinfo2();
    return (long long)(info.uordblks + info.hblkhd);
}

/* --- jemalloc ----------------------------------------------------------------------------------------------------- */

static int find_name(JemallocName *name)
{
    name->length = MAX_NAME;
    return find_mallctl(name->text, name->numbers, &name->length) == 0;
}

static int find_jemalloc(void)
{
    *(void **)&find_mallctl = find_symbol("mallctlnametomib");
    *(void **)&mallctl = find_symbol("mallctlbymib");
    return find_mallctl != NULL && mallctl != NULL && find_name(&epoch) && find_name(&handed_out) && find_name(&cached);
}

static int get_size(const JemallocName *name, size_t *value)
{
    size_t size = sizeof *value;
    return mallctl(name->numbers, name->length, value, &size, NULL, 0);
}

static long long read_jemalloc(void)
{
    uint64_t next = 1; /* any write has the account drawn up anew */
    size_t given, unused;
    if (mallctl(epoch.numbers, epoch.length, NULL, NULL, &next, sizeof next) == 0 && get_size(&handed_out, &given) == 0
        && get_size(&cached, &unused) == 0)
        return (long long)given - (long long)unused;
    PyErr_SetString(PyExc_OSError, "jemalloc does not give its account");
    return -1;
}

/* --- tcmalloc ----------------------------------------------------------------------------------------------------- */

static int find_tcmalloc(void)
{
    *(void **)&get_property = find_symbol("MallocExtension_GetNumericProperty");
    return get_property != NULL;
}

static long long read_tcmalloc(void)
{
    size_t in_use;
    if (get_property("generic.current_allocated_bytes", &in_use))
        return (long long)in_use;
    PyErr_SetString(PyExc_OSError, "tcmalloc does not give its account");
    return -1;
}

/* --- tracemalloc -------------------------------------------------------------------------------------------------- */

static int find_traced(void)
{
    PyObject *tracing = PyImport_ImportModule("tracemalloc");
    get_traced_memory = tracing != NULL ? PyObject_GetAttrString(tracing, "get_traced_memory") : NULL;
    Py_XDECREF(tracing);
    return get_traced_memory != NULL;
}

static long long read_traced(void)
{
    PyObject *sizes = call(get_traced_memory, NULL, 0, NULL);
    PyObject *in_use = sizes != NULL ? PyTuple_GetItem(sizes, 0) : NULL;
    long long bytes = in_use != NULL ? PyLong_AsLongLong(in_use) : -1;
    Py_XDECREF(sizes);
    return bytes;
}

/* --- the table ---------------------------------------------------------------------------------------------------- */

static PyObject *read_for_python(PyObject *number, PyObject *none);

#define METHOD(name, text) \
    {{#name "_in_use", read_for_python, METH_NOARGS, "Return the bytes in use, as " text "."}, find_##name, read_##name}

static struct {
    PyMethodDef definition;
    int (*find)(void);
    long long (*read)(void); /* -1 with an error set if it fails */
    PyObject *function;
} methods[] = {
    METHOD(glibc, "glibc's mallinfo2 counts them"),
    METHOD(jemalloc, "jemalloc counts them, less those in its threads' caches"),
    METHOD(tcmalloc, "tcmalloc counts them"),
    METHOD(traced, "tracemalloc counts them"),
};

#define METHODS (sizeof methods / sizeof *methods)

static PyObject *read_for_python(PyObject *number, PyObject *none)
{
    long long bytes = methods[PyLong_AsLong(number)].read();
    return bytes == -1 && PyErr_Occurred() ? NULL : PyLong_FromLongLong(bytes);
}

long long read_raw(PyObject *method)
{
    for (size_t i = 0; i < METHODS; i++)
        if (methods[i].function == method)
            return methods[i].read();
    PyObject *in_use = call(method, NULL, 0, NULL);
    long long bytes = in_use != NULL ? PyLong_AsLongLong(in_use) : -1;
    Py_XDECREF(in_use);
    return bytes;
}

int add_heap_methods(PyObject *module)
{
    for (size_t i = 0; i < METHODS; i++) {
        if (!methods[i].find()) {
            if (PyErr_Occurred() || PyModule_AddObjectRef(module, methods[i].definition.ml_name, Py_None) < 0)
                return -1;
            continue;
        }
        PyObject *number = PyLong_FromSize_t(i);
        methods[i].function = number != NULL ? PyCFunction_NewEx(&methods[i].definition, number, NULL) : NULL;
        Py_XDECREF(number);
        if (methods[i].function == NULL
            || PyModule_AddObjectRef(module, methods[i].definition.ml_name, methods[i].function) < 0)
            return -1;
    }
    return 0;
}
