/* What the files of the stall sampler in C share.

   The stall sampler is a thread that never takes the GIL: C code that keeps the GIL keeps every thread of Python from
   looking, this one not. Nothing here calls Python, except the functions that say so. All memory that belongs to Python
   is read by safe copies (memory.c): an object may be gone, and then there is no stack instead of a crash. */

#ifndef OPENRTC_STALL_H
#define OPENRTC_STALL_H

#include "meter.h"
#include <sys/types.h>

#define MAX_FRAMES 64 /* as in stacks.py */

/* --- memory.c: copies of this process's memory ---------------------------------------------------------------------- */

/* Copy bytes from an address, which may be that of nothing. Return 0, or -1 if they cannot be read. */
int copy_memory(void *to, uintptr_t from, size_t size);

/* --- layout.c: where this version of Python keeps its frames -------------------------------------------------------- */

typedef struct {
    int interpreter_threads;                      /* in an interpreter's state: its first thread's */
    int thread_next, thread_id, thread_frame;     /* in a thread's state */
    int cframe_frame;                             /* in what thread_frame refers to; -1: that is the frame */
    int frame_code, frame_previous, frame_instruction, frame_owner, frame_size;
    int code_file, code_name, code_lines, code_first_line, code_instructions;
    int text_length, text_state, ascii_size, text_size; /* of str */
    int bytes_length, bytes_data;
    int gil_interval, gil_holder, gil_locked, gil_switches; /* in the state of the GIL */
} Layout;

extern Layout layout;
extern int layout_known;

/* Find the layout of the Python that runs. With the GIL. */
void find_layout(void);

/* Return the address of the state of the interpreter's GIL; 0: unknown. With the GIL, after find_layout. */
uintptr_t find_gil(uintptr_t interpreter, uintptr_t thread);

/* --- stack.c: the stack of a thread --------------------------------------------------------------------------------- */

typedef struct {
    uintptr_t code;
    int instruction; /* bytes from the first instruction of the code */
} Frame;

typedef struct {
    int count; /* the innermost frame comes first */
    Frame frames[MAX_FRAMES];
} Stack;

typedef struct {
    int line;
    const char *file, *function; /* UTF-8, in `text` */
} Place;

#define PLACES_TEXT 24576

typedef struct {
    int count;
    Place places[MAX_FRAMES];
    size_t used;
    char text[PLACES_TEXT];
} Places;

/* Return the state of the thread of this id (threading.get_ident()), or 0. */
uintptr_t find_thread(uintptr_t interpreter, unsigned long id);

/* Take the stack of a thread. Return 0, or -1 if it cannot be read. */
int take_stack(uintptr_t thread, Stack *stack);
int same_stack(const Stack *one, const Stack *other);

/* Look up the files, lines and functions of a stack: as many as there is room for. Return 0, or -1 if there are none. */
int find_places(const Stack *stack, Places *places);

/* Return places as a tuple of (file, line, function), or NULL with an error set. With the GIL. */
PyObject *tuple_of(const Place *places, int count);


/* --- folders.c: which code is the user's ----------------------------------------------------------------------------- */

/* Return the file's name without the first of the folders that it is in. See folders.py for their form. */
const char *shown_file(const char *folders, const char *file);

/* Return the innermost place in the user's own code, else the innermost; NULL: there is none outside of this package. */
const Place *users_place(const char *folders, const Places *places);
int is_own_place(const char *folders, const Place *place);

/* Leave out the calls that run the loop, and what is outside of them. */
void cut_at_loop(const char *folders, Places *places);

/* --- text.c: lines and JSON ------------------------------------------------------------------------------------------ */

typedef struct {
    char *at;
    size_t size, used;
    int full; /* whether something did not fit */
} Text;

void put(Text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void put_json(Text *text, const char *string);
void put_printable(Text *text, const char *string);
uint32_t checksum_of(const char *bytes, size_t size);

/* Write text to a descriptor that takes it at once; give up, rather than wait, if it does not. */
void write_without_waiting(int descriptor, const Text *text);

/* --- kept.c: the stacks that were seen in one span -------------------------------------------------------------------- */

#define MAX_KEPT 48
#define KEPT_TEXT 98304

typedef struct {
    double first, last; /* clock readings from which on, and until which, it was there */
    int keeper, count;
    Stack stack;
    Place places[MAX_FRAMES];
} KeptStack;

typedef struct {
    double since; /* clock reading of the span's beginning */
    int count;
    size_t used;
    KeptStack stacks[MAX_KEPT];
    char text[KEPT_TEXT];
} KeptStacks;

/* Keep a stack that was there from `first` to `last` in the span that began at `since`. */
void keep_stack(KeptStacks *kept, double since, const Stack *stack, const Places *places, int keeper, double first,
                double last);

/* Return the stacks of a span as a list of (first, last, keeper, ((file, line, function), ...)). With the GIL.
   ended: until when the last one was there, if that is later than it was seen. */
PyObject *kept_within(const KeptStacks *kept, double since, double until, double ended);

/* --- box_section.c ------------------------------------------------------------------------------------------------------ */

/* A descriptor, and the file that it was opened for: a host may close descriptors that it does not know. */
typedef struct {
    int descriptor; /* -1: none */
    dev_t device;
    ino_t number;
} OwnFile;

/* Return a duplicate of a descriptor; of -1, none. */
OwnFile duplicate_of(int descriptor);

/* Return whether the descriptor still is that file's. */
int is_own(const OwnFile *file);

/* Close it, if it still is that file's. */
void close_own(OwnFile *file);

typedef struct {
    OwnFile file;
    off_t offset;
    size_t slot;
    uint64_t records;
    int failed; /* whether a write has failed: there are no more */
} BoxSection;


void write_record(BoxSection *section, const Text *payload);

/* --- stall_thread.c, watched.c: the thread, and the loops that it watches -------------------------------------------- */

enum { KEEPER_UNKNOWN, KEEPER_LOOP, KEEPER_OTHER };

typedef struct Watched Watched;

typedef struct {
    PyObject_HEAD
    PyObject *weak;
    PyObject *parked;       /* the account that stands in as the holder while threads that observe the loop sleep */
    PyObject *usage;        /* the ThreadUsage of the loop's thread */
    Ledger *ledger;
    Iterations *iterations;
    double due, interval;   /* due: NaN: None */
    double when, cpu_s, run_delay_s, process_s, idle; /* at the last tick that is remembered; NaN: None */
    double marked; /* when what was last reported as blocked now began */
    int marks;     /* how often it was */
    double reported_at; /* when it last was */
    double next_mark_s; /* seconds for which it has held the loop when that is due again */
    unsigned long long thread_id, native_id;
    Watched *watched; /* its part in the stall sampler's thread; NULL: none */
    char awake;
} Sampler;

extern PyTypeObject *sampler_type;

double monotonic_s(void);

/* What the watchdog says of itself: it sleeps until `due`; it is about to take the GIL; it has it; it rests. */
void watchdog_sleeps(double due);
void watchdog_wants_gil(void);
long gil_switches(void); /* return how often the GIL has changed hands since the watchdog wanted it; -1: not known */
double watchdog_has_gil(void); /* return for how many seconds it has waited */
void watchdog_rests(void);

void stop_watching(Sampler *sampler);
PyObject *watch_without_gil(Sampler *sampler, PyObject *args);
PyObject *take_mark(Sampler *sampler, PyObject *args);

#endif
