/* Files: checks with a sentence, folders, durable writing, reading text that may be gzipped, checksums.
 * Durable: the bytes go to a temporary name in the same folder, are synced, get their name, and the folder is synced;
 * a crash leaves the old file, the new one, or a *.tmp-* to be ignored, never half a file under the final name. */
#ifndef AST_IO_FILE_H
#define AST_IO_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct buf;

enum { FILE_PATH = 4096 }; /* bytes of a path, terminator included */

/* "folder/name" into out (FILE_PATH bytes). ERR_ARG if it does not fit. */
int file_join(char out[FILE_PATH], const char *folder, const char *name);

/* The folder of a path: "a/b" -> "a", "b" -> ".", "/b" -> "/". ERR_ARG if it does not fit. */
int file_folder(char out[FILE_PATH], const char *path);
const char *file_base(const char *path); /* what follows the last '/' */

/* A regular file that this process can read; ERR_IO says why not. */
int file_readable(const char *path);
/* A folder in which this process can create files; ERR_IO says why not. */
int file_folder_writable(const char *folder);
bool file_exists(const char *path);
bool file_is_folder(const char *path);
int64_t file_bytes(const char *path); /* -1 if there is none */

/* Creates the folder and those above it; fine if they exist. Safe when several processes do it at once. ERR_IO. */
int file_make_folders(const char *folder);

/* ERR_IO if the file system of `folder` has less than `bytes` left for us. */
int file_space(const char *folder, double bytes);

/* A temporary name beside path, unique to this process and call (host, process, counter). ERR_ARG if too long. */
int file_temp_name(char out[FILE_PATH], const char *path);

/* Syncs an open stream's bytes to disk. ERR_IO names path. */
int file_sync(FILE *f, const char *path);
/* Syncs a folder's entries. */
int file_sync_folder(const char *folder);

/* temp -> path, over an existing file; then syncs the folder. temp must have been synced. Local. ERR_IO. */
int file_publish(const char *temp, const char *path);

/* As file_publish, but an existing file stays: then *existed is true, the return ERR_OK, and temp is removed. */
int file_publish_noreplace(const char *temp, const char *path, bool *existed);

/* The whole file, durably. */
int file_write_durable(const char *path, const void *bytes, size_t n);

/* Copies a file's bytes, durably. */
int file_copy(const char *from, const char *to);

/* The whole of a text file, gunzipped if it is a .gz (told by its first bytes). limit 0: none.
 * ERR_IO; ERR_FORMAT if damaged, cut short or longer than limit bytes. */
int file_read_text(struct buf *out, const char *path, size_t limit);

/* CRC-32 (the one of zip and PNG) continued from crc; start with 0. */
uint32_t file_crc32(uint32_t crc, const void *bytes, size_t n);

#endif
