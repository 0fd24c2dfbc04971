/* The stacks that the stall sampler saw in one span, for the detector of blocks to read when it has ended. */

#include "stall.h"
#include <string.h>

#define CONTINUED_S 0.025 /* a stack that is seen again after so many seconds was there all the time */

/* Copy a string into the text of `kept`. Return where it begins, or NULL if there is no room. */
static const char *keep_text(KeptStacks *kept, const char *string)
{
    size_t size = strlen(string) + 1;
    if (kept->used + size > sizeof kept->text)
        return NULL;
    char *at = memcpy(kept->text + kept->used, string, size);
    kept->used += size;
    return at;
}

void keep_stack(KeptStacks *kept, double since, const Stack *stack, const Places *places, int keeper, double first,
                double last)
{
    if (kept->since != since) {
        kept->since = since;
        kept->count = 0;
        kept->used = 0;
    }
    KeptStack *latest = kept->count > 0 ? &kept->stacks[kept->count - 1] : NULL;
    if (latest != NULL && latest->keeper == keeper && first - latest->last < CONTINUED_S
        && same_stack(&latest->stack, stack)) {
        latest->last = last;
        return;
    }
    if (kept->count == MAX_KEPT)
        return;
    KeptStack *added = &kept->stacks[kept->count];
    const char *file = NULL;
    added->count = 0;
    for (int each = 0; each < places->count; each++) {
        const Place *place = &places->places[each];
        if (each == 0 || place->file != places->places[each - 1].file)
            file = keep_text(kept, place->file);
        const char *function = file != NULL ? keep_text(kept, place->function) : NULL;
        if (function == NULL)
            break;
        added->places[added->count++] = (Place){.line = place->line, .file = file, .function = function};
    }
    if (added->count == 0 && places->count > 0)
        return;
    added->first = first;
    added->last = last;
    added->keeper = keeper;
    added->stack = *stack;
    kept->count++;
}

PyObject *kept_within(const KeptStacks *kept, double since, double until, double ended)
{
    PyObject *stacks = PyList_New(0);
    for (int each = 0; stacks != NULL && each < kept->count; each++) {
        const KeptStack *stack = &kept->stacks[each];
        double last = each == kept->count - 1 ? fmax(stack->last, fmin(ended, until)) : stack->last;
        if (last < since || stack->first > until)
            continue;
        PyObject *places = tuple_of(stack->places, stack->count);
        PyObject *item = places == NULL ? NULL : Py_BuildValue("(ddiN)", stack->first, last, stack->keeper, places);
        if (item == NULL || PyList_Append(stacks, item) < 0)
            Py_CLEAR(stacks);
        Py_XDECREF(item);
    }
    return stacks;
}
