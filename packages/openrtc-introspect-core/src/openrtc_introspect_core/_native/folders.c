/* Which code is the user's, and how files are shown: the rules of stacks.py, for the stall sampler.

   Folders come as one string of entries that end in a zero byte, and an empty entry at the end. The first letter of an
   entry says what is in the folder: u the user's own code, c the working directory, o others' code, p this package. An
   entry that begins with e is no folder, but a function that runs loops, as FUNCTION:FILE. */

#include "stall.h"
#include <string.h>

static const char *next_folder(const char *folders)
{
    return folders + strlen(folders) + 1;
}

static int is_in(const char *file, const char *folder)
{
    return strncmp(file, folder, strlen(folder)) == 0;
}

const char *shown_file(const char *folders, const char *file)
{
    for (; *folders != '\0'; folders = next_folder(folders))
        if (*folders != 'p' && *folders != 'e' && is_in(file, folders + 1))
            return file + strlen(folders + 1);
    return file;
}

int is_own_place(const char *folders, const Place *place)
{
    for (; *folders != '\0'; folders = next_folder(folders))
        if (*folders == 'p' && is_in(place->file, folders + 1))
            return 1;
    return 0;
}

static int is_users(const char *folders, const char *file)
{
    int has_roots = 0, in_root = 0, in_others = is_in(file, "<frozen ");
    for (; *folders != '\0'; folders = next_folder(folders)) {
        int inside = is_in(file, folders + 1);
        has_roots |= *folders == 'u';
        in_root |= *folders == 'u' && inside;
        in_others |= (*folders == 'o' || *folders == 'p') && inside;
    }
    return has_roots ? in_root : !in_others;
}

const Place *users_place(const char *folders, const Places *places)
{
    const Place *innermost = NULL;
    for (int each = 0; each < places->count; each++) {
        const Place *place = &places->places[each];
        if (is_own_place(folders, place))
            continue;
        if (is_users(folders, place->file))
            return place;
        if (innermost == NULL)
            innermost = place;
    }
    return innermost;
}

static int runs_loops(const char *folders, const Place *place)
{
    size_t length = strlen(place->function);
    for (; *folders != '\0'; folders = next_folder(folders))
        if (*folders == 'e' && strncmp(folders + 1, place->function, length) == 0 && folders[1 + length] == ':'
            && strcmp(folders + 2 + length, place->file) == 0)
            return 1;
    return 0;
}

void cut_at_loop(const char *folders, Places *places)
{
    for (int each = 0; each < places->count; each++)
        if (runs_loops(folders, &places->places[each])) {
            places->count = each;
            return;
        }
}
