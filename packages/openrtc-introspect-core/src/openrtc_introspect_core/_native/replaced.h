/* Callables in C that stand in for a method of the host's, as functions in Python do: they are called with the object
   first, and carry the name, the signature and the docstring of the original in their attributes. */

#ifndef OPENRTC_REPLACED_H
#define OPENRTC_REPLACED_H

#include "meter.h"

/* The first fields of each such callable. */
#define REPLACED_HEAD     \
    PyObject_HEAD         \
    vectorcall vectorcall_; \
    PyObject *attributes;

#define REPLACED_MEMBERS(type)                                                            \
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(type, vectorcall_), READONLY, NULL},    \
    {"__dictoffset__", T_PYSSIZET, offsetof(type, attributes), READONLY, NULL},

/* `tp_call` of any callable with a vectorcall: PyVectorcall_Call, which the stable ABI of 3.11 lacks. */
PyObject *call_replaced(PyObject *self, PyObject *args, PyObject *kwargs);

#endif
