/* The stack of a thread, read without the GIL, see layout.c.

   The caller sees to it that the thread runs no Python code meanwhile. If it does so all the same, what is read may be no
   stack at all, but reading it does not crash. */

#include "stall.h"
#include <string.h>

#define OWNED_BY_INTERPRETER 3 /* from this owner on, a frame is none of Python's code, see pycore_frame.h */
#define MAX_VISITED 512        /* frames, shown or not */
#define MAX_THREADS 4096
#define MAX_FILE 1024          /* bytes of a file's name; of a longer one, the end */
#define MAX_FUNCTION 256
#define NO_LINE 15             /* the kinds of entries in a table of lines, see Objects/locations.md of CPython */
#define LONG_FORM 14
#define NO_COLUMNS 13
#define ONE_LINE 10

static uintptr_t code_type;
static Py_ssize_t generator_size; /* of a coroutine or generator, up to the variables in its frame */

static int copy_word(uintptr_t *word, uintptr_t from)
{
    return copy_memory(word, from, sizeof *word);
}

static uintptr_t word_at(const char *image, int offset)
{
    uintptr_t word;
    memcpy(&word, image + offset, sizeof word);
    return word;
}

uintptr_t find_thread(uintptr_t interpreter, unsigned long id)
{
    uintptr_t thread = 0, its_id = 0;
    if (copy_word(&thread, interpreter + (uintptr_t)layout.interpreter_threads) < 0)
        return 0;
    for (int visited = 0; thread != 0 && visited < MAX_THREADS; visited++) {
        if (copy_word(&its_id, thread + (uintptr_t)layout.thread_id) < 0)
            return 0;
        if (its_id == id)
            return thread;
        if (copy_word(&thread, thread + (uintptr_t)layout.thread_next) < 0)
            return 0;
    }
    return 0;
}

int take_stack(uintptr_t thread, Stack *stack)
{
    char image[128];
    uintptr_t frame = 0, type = 0;
    stack->count = 0;
    if (layout.frame_size > (int)sizeof image || copy_word(&frame, thread + (uintptr_t)layout.thread_frame) < 0)
        return -1;
    if (layout.cframe_frame >= 0 && copy_word(&frame, frame + (uintptr_t)layout.cframe_frame) < 0)
        return -1;
    for (int visited = 0; frame != 0 && stack->count < MAX_FRAMES && visited < MAX_VISITED; visited++) {
        if (copy_memory(image, frame, (size_t)layout.frame_size) < 0)
            return -1;
        uintptr_t code = word_at(image, layout.frame_code) & ~(uintptr_t)7; /* the lowest bits are flags since 3.14 */
        if ((unsigned char)image[layout.frame_owner] < OWNED_BY_INTERPRETER) {
            if (copy_word(&type, code + sizeof(Py_ssize_t)) < 0 || type != code_type)
                return -1;
            intptr_t at = (intptr_t)(word_at(image, layout.frame_instruction) - code) - layout.code_instructions;
            Frame *found = &stack->frames[stack->count++];
            found->code = code;
            found->instruction = at > INT32_MAX || at < -2 ? -2 : (int)at;
        }
        frame = word_at(image, layout.frame_previous);
    }
    return 0;
}

int same_stack(const Stack *one, const Stack *other)
{
    if (one->count != other->count)
        return 0;
    for (int each = 0; each < one->count; each++)
        if (one->frames[each].code != other->frames[each].code
            || one->frames[each].instruction != other->frames[each].instruction)
            return 0;
    return 1;
}

/* --- lines ------------------------------------------------------------------------------------------------------------ */

typedef struct {
    uintptr_t from;
    size_t left, have, used; /* bytes that are not copied; those that are, and of them those that were read */
    unsigned char bytes[256];
} Reader;

/* Return the next byte, or -1. */
static int next_byte(Reader *reader)
{
    if (reader->used == reader->have) {
        size_t size = reader->left < sizeof reader->bytes ? reader->left : sizeof reader->bytes;
        if (size == 0 || copy_memory(reader->bytes, reader->from, size) < 0)
            return -1;
        reader->from += size;
        reader->left -= size;
        reader->have = size;
        reader->used = 0;
    }
    return reader->bytes[reader->used++];
}

static int next_signed(Reader *reader)
{
    unsigned int value = 0;
    int byte, shift = 0;
    do {
        byte = next_byte(reader);
        if (byte < 0)
            return 0;
        value |= (unsigned int)(byte & 63) << shift;
        shift += 6;
    } while (byte & 64 && shift < 30);
    return value & 1 ? -(int)(value >> 1) : (int)(value >> 1);
}

/* Return the line of an instruction, else the first line of the code. */
static int line_of(const char *image, int instruction)
{
    int line, first, covered = 0, byte;
    Reader reader = {.from = word_at(image, layout.code_lines) + (uintptr_t)layout.bytes_data};
    memcpy(&first, image + layout.code_first_line, sizeof first);
    line = first;
    uintptr_t length = 0;
    if (instruction < 0
        || copy_word(&length, word_at(image, layout.code_lines) + (uintptr_t)layout.bytes_length) < 0)
        return first;
    reader.left = length;
    byte = next_byte(&reader);
    while (byte >= 0) {
        int kind = byte >> 3 & 15;
        covered += 2 * ((byte & 7) + 1);
        if (kind == LONG_FORM || kind == NO_COLUMNS)
            line += next_signed(&reader);
        else if (kind >= ONE_LINE && kind < NO_COLUMNS)
            line += kind - ONE_LINE;
        if (instruction < covered)
            return kind == NO_LINE ? first : line;
        do { /* the rest of the entry: an entry's first byte alone has its highest bit set */
            byte = next_byte(&reader);
        } while (byte >= 0 && !(byte & 128));
    }
    return first;
}

/* --- text ------------------------------------------------------------------------------------------------------------- */

static size_t put_utf8(char *to, unsigned int point)
{
    if (point == 0 || (point >= 0xD800 && point < 0xE000) || point > 0x10FFFF)
        point = '?'; /* such as half of a pair, which file names that are no UTF-8 have */
    if (point < 0x80) {
        to[0] = (char)point;
        return 1;
    }
    if (point < 0x800) {
        to[0] = (char)(0xC0 | point >> 6);
        to[1] = (char)(0x80 | (point & 63));
        return 2;
    }
    if (point < 0x10000) {
        to[0] = (char)(0xE0 | point >> 12);
        to[1] = (char)(0x80 | (point >> 6 & 63));
        to[2] = (char)(0x80 | (point & 63));
        return 3;
    }
    to[0] = (char)(0xF0 | point >> 18);
    to[1] = (char)(0x80 | (point >> 12 & 63));
    to[2] = (char)(0x80 | (point >> 6 & 63));
    to[3] = (char)(0x80 | (point & 63));
    return 4;
}

/* Add the last `most` characters of a str to the text. Return where they begin, or NULL. */
static const char *add_text(Places *places, uintptr_t string, size_t most)
{
    unsigned char raw[4 * MAX_FILE];
    uintptr_t length = 0;
    uint32_t state = 0;
    if (copy_word(&length, string + (uintptr_t)layout.text_length) < 0
        || copy_memory(&state, string + (uintptr_t)layout.text_state, sizeof state) < 0)
        return NULL;
    size_t kind = state >> 2 & 7, skipped = length > most ? length - most : 0;
    int compact = state >> 5 & 1, ascii = state >> 6 & 1;
    if (!compact || (kind != 1 && kind != 2 && kind != 4) || length > 1 << 20)
        return NULL;
    uintptr_t data = string + (uintptr_t)(ascii ? layout.ascii_size : layout.text_size) + skipped * kind;
    size_t count = length - skipped;
    if (places->used + 4 * count + 1 > sizeof places->text || copy_memory(raw, data, count * kind) < 0)
        return NULL;
    char *begin = places->text + places->used, *end = begin;
    for (size_t each = 0; each < count; each++) {
        uint32_t point = 0;
        memcpy(&point, raw + each * kind, kind); /* the first bytes are the lowest */
        end += put_utf8(end, point);
    }
    *end++ = '\0';
    places->used = (size_t)(end - places->text);
    return begin;
}

int find_places(const Stack *stack, Places *places)
{
    char image[256];
    size_t size = (size_t)layout.code_instructions;
    uintptr_t last_file = 0;
    const char *last_shown = NULL;
    places->count = 0;
    places->used = 0;
    if (size > sizeof image)
        return -1;
    for (int each = 0; each < stack->count; each++) {
        if (copy_memory(image, stack->frames[each].code, size) < 0)
            break;
        uintptr_t file = word_at(image, layout.code_file);
        if (file != last_file || last_shown == NULL) /* neighbours are often of one file */
            last_shown = add_text(places, file, MAX_FILE);
        last_file = file;
        const char *function = add_text(places, word_at(image, layout.code_name), MAX_FUNCTION);
        if (last_shown == NULL || function == NULL)
            break;
        places->places[places->count++] =
            (Place){.line = line_of(image, stack->frames[each].instruction), .file = last_shown, .function = function};
    }
    return places->count > 0 ? 0 : -1;
}

PyObject *tuple_of(const Place *places, int count)
{
    PyObject *found = PyTuple_New(count);
    for (int each = 0; found != NULL && each < count; each++) {
        PyObject *item = Py_BuildValue("(sis)", places[each].file, places[each].line, places[each].function);
        if (item == NULL || PyTuple_SetItem(found, each, item) < 0)
            Py_CLEAR(found);
    }
    return found;
}

/* Return the stack of the calling thread as a tuple of (file, line, function), or None if it cannot be read. */
static PyObject *own_stack(PyObject *module, PyObject *none)
{
    Stack stack;
    static Places places; /* the GIL guards it */
    uintptr_t thread = (uintptr_t)PyThreadState_Get();
    if (!layout_known || take_stack(thread, &stack) < 0 || find_places(&stack, &places) < 0)
        return Py_NewRef(Py_None);
    return tuple_of(places.places, places.count);
}

static PyObject *gil_known(PyObject *module, PyObject *none)
{
    uintptr_t interpreter = (uintptr_t)PyInterpreterState_Get();
    return PyBool_FromLong(layout_known && find_gil(interpreter, (uintptr_t)PyThreadState_Get()) != 0);
}

/* Return the instruction that a suspended coroutine or generator is at, or None if its frame is not found. It refers to
   its code once in its frame, which is its last part, and may do so before. The object that Python makes for a frame is
   not made. */
static PyObject *suspended_at(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2)
        return PyErr_Format(PyExc_TypeError, "suspended_at takes a coroutine and its code, %zd given", count);
    const char *generator = (const char *)args[0];
    uintptr_t code = (uintptr_t)args[1];
    Py_ssize_t last = layout_known ? generator_size - layout.frame_size : 0;
    for (Py_ssize_t frame = last & ~(Py_ssize_t)7; frame > (Py_ssize_t)sizeof(PyObject); frame -= 8)
        if ((word_at(generator + frame, layout.frame_code) & ~(uintptr_t)7) == code) {
            uintptr_t instruction = word_at(generator + frame, layout.frame_instruction);
            return PyLong_FromSsize_t((Py_ssize_t)(instruction - code) - layout.code_instructions);
        }
    return Py_NewRef(Py_None);
}

static PyMethodDef functions[] = {
    {"suspended_at", (PyCFunction)(void (*)(void))suspended_at, METH_FASTCALL,
     "Return the instruction that a suspended coroutine or generator is at, as its frame's f_lasti. The second argument is its code."},
    {"own_stack", own_stack, METH_NOARGS,
     "Return the calling thread's stack as the stall sampler reads it: (file, line, function), the innermost first."},
    {"gil_known", gil_known, METH_NOARGS, "Return whether the stall sampler can tell which thread keeps the GIL."},
    {NULL},
};

int add_stack(PyObject *module)
{
    PyObject *types = PyImport_ImportModule("types");
    PyObject *code = types != NULL ? PyObject_GetAttrString(types, "CodeType") : NULL;
    PyObject *coroutine = code != NULL ? PyObject_GetAttrString(types, "CoroutineType") : NULL;
    PyObject *size = coroutine != NULL ? PyObject_GetAttrString(coroutine, "__basicsize__") : NULL;
    Py_XDECREF(types);
    Py_XDECREF(coroutine);
    if (size == NULL) {
        Py_XDECREF(code);
        return -1;
    }
    code_type = (uintptr_t)code; /* lives as long as the interpreter */
    generator_size = PyLong_AsSsize_t(size);
    Py_DECREF(size);
    find_layout();
    return PyModule_AddFunctions(module, functions);
}
