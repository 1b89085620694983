/* Files from the net in memory, and what is packed in them. Each function complains itself and then returns 0. */
#ifndef TERN_CLI_FETCH_H
#define TERN_CLI_FETCH_H

#include <stddef.h>
#include <stdint.h>

typedef struct buffer {
    uint8_t *data; /* malloc'ed */
    size_t size;
} buffer;

/* http, https or file. At most 1 GiB. */
int fetch(buffer *out, const char *url);

/* A whole file; says nothing where it cannot be read. */
int read_whole(buffer *out, const char *path);

/* Writes to PATH.part first, so that PATH is whole or not there. */
int write_whole(const char *path, const uint8_t *data, size_t bytes);

/* gzip in memory; at most 1 GiB of content. `name` is for messages. */
int gunzip(buffer *out, const buffer *packed, const char *name);

/* The member of a tar archive whose name ends in /NAME or is NAME: *data points into the archive. */
int find_in_tar(const uint8_t **data, size_t *bytes, const buffer *archive, const char *name);

#endif
