/* Lines of text and JSON, made without Python and without memory that must be asked for. */

#include "stall.h"
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void put(Text *text, const char *format, ...)
{
    va_list arguments;
    size_t left = text->size - text->used;
    va_start(arguments, format);
    int length = vsnprintf(text->at + text->used, left, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= left)
        text->full = 1;
    else
        text->used += (size_t)length;
}

/* Put a string whose unprintable characters a reader would act upon. */
static void put_escaped(Text *text, const char *string, const char *escaped)
{
    for (; *string != '\0'; string++) {
        unsigned char byte = (unsigned char)*string;
        if (byte < 0x20 || byte == 0x7F)
            put(text, escaped, byte);
        else if (text->used + 1 < text->size)
            text->at[text->used++] = *string;
        else
            text->full = 1;
    }
}

void put_json(Text *text, const char *string)
{
    put(text, "\"");
    for (const char *rest = string; *rest != '\0'; rest++) {
        char one[2] = {*rest, '\0'};
        if (*rest == '"' || *rest == '\\')
            put(text, "\\");
        put_escaped(text, one, "\\u%04x");
    }
    put(text, "\"");
}

/* Return the bytes of a character in UTF-8 that a terminal acts upon, or that breaks or turns a line; 0: it is none.
   point: the character. */
static int acted_upon(const unsigned char *bytes, unsigned int *point)
{
    if (bytes[0] == 0xC2 && bytes[1] >= 0x80 && bytes[1] < 0xA0) {
        *point = bytes[1];
        return 2;
    }
    if (bytes[0] == 0xE2 && (bytes[1] == 0x80 || bytes[1] == 0x81) && bytes[2] >= 0x80) {
        *point = 0x2000 | (unsigned int)(bytes[1] & 1) << 6 | (bytes[2] & 63);
        if (*point == 0x200E || *point == 0x200F || (*point >= 0x2028 && *point <= 0x202E)
            || (*point >= 0x2060 && *point <= 0x206F))
            return 3;
    }
    return 0;
}

void put_printable(Text *text, const char *string)
{
    unsigned int point = 0;
    while (*string != '\0') {
        int size = acted_upon((const unsigned char *)string, &point);
        char one[2] = {*string, '\0'};
        if (size == 0)
            put_escaped(text, one, "\\x%02x");
        else
            put(text, point < 0x100 ? "\\x%02x" : "\\u%04x", point);
        string += size == 0 ? 1 : size;
    }
}

/* CRC-32 as zlib and PNG compute it. */
uint32_t checksum_of(const char *bytes, size_t size)
{
    uint32_t sum = 0xFFFFFFFF;
    for (size_t each = 0; each < size; each++) {
        sum ^= (unsigned char)bytes[each];
        for (int bit = 0; bit < 8; bit++)
            sum = sum >> 1 ^ (sum & 1 ? 0xEDB88320 : 0);
    }
    return ~sum;
}

void write_without_waiting(int descriptor, const Text *text)
{
    size_t done = 0;
    while (done < text->used) {
        struct pollfd ready = {.fd = descriptor, .events = POLLOUT};
        if (poll(&ready, 1, 0) <= 0 || !(ready.revents & POLLOUT))
            return;
        size_t size = text->used - done < 512 ? text->used - done : 512; /* a pipe that is ready takes so much at once */
        ssize_t written = write(descriptor, text->at + done, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return;
        done += (size_t)written;
    }
}
