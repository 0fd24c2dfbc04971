/* One section of the black box, see docs/black-box.md: two slots that are written in turn. */

#include "stall.h"
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD 16 /* bytes of a slot before its payload */

OwnFile duplicate_of(int descriptor)
{
    struct stat status;
    OwnFile file = {.descriptor = descriptor < 0 ? -1 : fcntl(descriptor, F_DUPFD_CLOEXEC, 3)};
    if (file.descriptor >= 0 && fstat(file.descriptor, &status) == 0) {
        file.device = status.st_dev;
        file.number = status.st_ino;
    }
    return file;
}

int is_own(const OwnFile *file)
{
    struct stat status;
    return file->descriptor >= 0 && fstat(file->descriptor, &status) == 0 && status.st_dev == file->device
        && status.st_ino == file->number;
}

void close_own(OwnFile *file)
{
    if (is_own(file))
        close(file->descriptor);
    file->descriptor = -1;
}

static void put_little(char *to, uint64_t value, int bytes)
{
    for (int each = 0; each < bytes; each++)
        to[each] = (char)(value >> 8 * each);
}

void write_record(BoxSection *section, const Text *payload)
{
    char record[16384];
    if (section->file.descriptor < 0 || section->failed || payload->full || HEAD + payload->used > section->slot
        || HEAD + payload->used > sizeof record)
        return;
    uint64_t number = ++section->records;
    put_little(record, number, 8);
    put_little(record + 8, payload->used, 4);
    put_little(record + 12, checksum_of(payload->at, payload->used), 4);
    memcpy(record + HEAD, payload->at, payload->used);
    off_t at = section->offset + (off_t)(number & 1) * (off_t)section->slot;
    if (!is_own(&section->file) || pwrite(section->file.descriptor, record, HEAD + payload->used, at) < 0)
        section->failed = 1; /* the file is gone or the disk full: what was written last remains */
}
