/* Reads a result file back, before it gets its name. */
#ifndef AST_IO_H5_VERIFY_H
#define AST_IO_H5_VERIFY_H

/* Every dataset and attribute of the file, whole: checksums are compared on the way. MPI-IO on a full disk may lose pieces of a
 * collective write and report success (seen with Open MPI 4.1.4's OMPIO). Local. ERR_IO names the first dataset that does not read.
 */
int h5_verify(const char *path);

#endif
