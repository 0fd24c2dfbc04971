/* Where the Python that runs keeps its frames, so that a stack can be read without the GIL.

   From 3.13 on, Python's runtime state begins with a table of these offsets, made for debuggers. The table's own layout
   differs by version: below are the places in it. 3.11 and 3.12 have no such table, their offsets are written out. What
   was found is tried on a real stack before it is used (see stack_walk in _native/__init__.py): a Python whose
   layout is another is read with the GIL only. */

#include "stall.h"
#include <dlfcn.h>
#include <string.h>

Layout layout;
int layout_known;
static const char *runtime; /* _PyRuntime */
static int runtime_gil = -1, interpreter_gil = -1;

static const Layout LAYOUT_3_11 = {
    .interpreter_threads = 16, .thread_next = 8, .thread_id = 152, .thread_frame = 56, .cframe_frame = 8,
    .frame_code = 32, .frame_previous = 48, .frame_instruction = 56, .frame_owner = 69, .frame_size = 72,
    .code_file = 112, .code_name = 128, .code_lines = 136, .code_first_line = 72, .code_instructions = 184,
    .text_length = 16, .text_state = 32, .ascii_size = 48, .text_size = 72, .bytes_length = 16, .bytes_data = 32,
    .gil_interval = 0, .gil_holder = 8, .gil_locked = 16, .gil_switches = 24,
};

static const Layout LAYOUT_3_12 = {
    .interpreter_threads = 72, .thread_next = 8, .thread_id = 136, .thread_frame = 56, .cframe_frame = 0,
    .frame_code = 0, .frame_previous = 8, .frame_instruction = 56, .frame_owner = 70, .frame_size = 72,
    .code_file = 112, .code_name = 128, .code_lines = 136, .code_first_line = 68, .code_instructions = 192,
    .text_length = 16, .text_state = 32, .ascii_size = 40, .text_size = 56, .bytes_length = 16, .bytes_data = 32,
    .gil_interval = 0, .gil_holder = 8, .gil_locked = 16, .gil_switches = 24,
};

/* Which of the table's numbers, of eight bytes each, is which. */
typedef struct {
    int interpreter_threads, interpreter_gil, gil, gil_locked, gil_holder, thread_next, thread_frame, thread_id;
    int frame_previous, frame_code, frame_instruction, frame_owner;
    int code_file, code_name, code_lines, code_first_line, code_instructions;
    int bytes_length, bytes_data, text_state, text_length, ascii_size;
} Table;

static const Table TABLE_3_13 = {9, 14, 15, 17, 18, 21, 23, 24, 29, 30, 31, 33, 35, 37, 38, 39, 43, 65, 66, 68, 69, 70};
static const Table TABLE_3_14 = {9, 15, 16, 18, 19, 24, 26, 27, 32, 33, 34, 36, 40, 42, 43, 44, 48, 75, 76, 78, 79, 80};
static const Table TABLE_3_15 = {9, 15, 16, 18, 19, 24, 26, 30, 40, 41, 42, 44, 48, 50, 51, 52, 56, 87, 88, 90, 91, 92};

#define VERSION_AT 1       /* the table's second number is Py_Version, after eight letters */
#define FREE_THREADED_AT 2
#define MAX_OFFSET 65536

static uint64_t number(int at)
{
    uint64_t value = 0;
    memcpy(&value, runtime + 8 * at, sizeof value);
    return value;
}

static int read_table(const Table *table, unsigned long version)
{
    if (memcmp(runtime, "xdebugpy", 8) != 0 || number(VERSION_AT) != version || number(FREE_THREADED_AT) != 0)
        return 0;
    const int *places = (const int *)table;
    for (size_t each = 0; each < sizeof *table / sizeof *places; each++)
        if (number(places[each]) > MAX_OFFSET)
            return 0;
    interpreter_gil = (int)number(table->interpreter_gil); /* the GIL itself may be another interpreter's */
    layout = (Layout){
        .interpreter_threads = (int)number(table->interpreter_threads),
        .thread_next = (int)number(table->thread_next),
        .thread_id = (int)number(table->thread_id),
        .thread_frame = (int)number(table->thread_frame),
        .cframe_frame = -1,
        .frame_code = (int)number(table->frame_code),
        .frame_previous = (int)number(table->frame_previous),
        .frame_instruction = (int)number(table->frame_instruction),
        .frame_owner = (int)number(table->frame_owner),
        .frame_size = (int)number(table->frame_owner) + 1,
        .code_file = (int)number(table->code_file),
        .code_name = (int)number(table->code_name),
        .code_lines = (int)number(table->code_lines),
        .code_first_line = (int)number(table->code_first_line),
        .code_instructions = (int)number(table->code_instructions),
        .text_length = (int)number(table->text_length),
        .text_state = (int)number(table->text_state),
        .ascii_size = (int)number(table->ascii_size),
        .text_size = (int)number(table->ascii_size) + 16, /* the length and the address of its UTF-8 follow */
        .bytes_length = (int)number(table->bytes_length),
        .bytes_data = (int)number(table->bytes_data),
        .gil_interval = (int)(number(table->gil_holder) - number(table->gil)) - 8,
        .gil_holder = (int)(number(table->gil_holder) - number(table->gil)),
        .gil_locked = (int)(number(table->gil_locked) - number(table->gil)),
        .gil_switches = (int)(number(table->gil_locked) - number(table->gil)) + 8,
    };
    return 1;
}

void find_layout(void)
{
    const unsigned long *version = dlsym(RTLD_DEFAULT, "Py_Version");
    runtime = dlsym(RTLD_DEFAULT, "_PyRuntime");
    if (version == NULL || runtime == NULL || sizeof(void *) != 8)
        return;
    switch (*version >> 16) {
    case 0x030B:
        layout = LAYOUT_3_11;
        layout_known = 1;
        runtime_gil = 360;
        break;
    case 0x030C:
        layout = LAYOUT_3_12;
        layout_known = 1;
        interpreter_gil = 384;
        break;
    case 0x030D:
        layout_known = read_table(&TABLE_3_13, *version);
        break;
    case 0x030E:
        layout_known = read_table(&TABLE_3_14, *version);
        break;
    case 0x030F:
        layout_known = read_table(&TABLE_3_15, *version);
        break;
    }
}

uintptr_t find_gil(uintptr_t interpreter, uintptr_t thread)
{
    uintptr_t gil = 0, holder = 0;
    int locked = 0;
    if (runtime_gil >= 0)
        gil = (uintptr_t)runtime + (uintptr_t)runtime_gil;
    else if (interpreter_gil < 0 || copy_memory(&gil, interpreter + (uintptr_t)interpreter_gil, sizeof gil) < 0)
        return 0;
    /* The thread that calls has the GIL: it must be what this state says. */
    if (copy_memory(&holder, gil + (uintptr_t)layout.gil_holder, sizeof holder) < 0
        || copy_memory(&locked, gil + (uintptr_t)layout.gil_locked, sizeof locked) < 0)
        return 0;
    return holder == thread && locked == 1 ? gil : 0;
}
