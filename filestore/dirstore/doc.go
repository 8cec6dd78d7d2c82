// Package dirstore keeps a filestore.Store in a directory: a local one, or a mount that all nodes share.
//
// An object is a file named by its key, so files that are there already are objects too. A new content is written to a temporary file below
// .nines/tmp on the same file system, made durable, and then given its name by rename, or by link(2) where it must be the first; the folders are made
// durable as well. Attributes are kept below .nines/meta. No path leaves the directory, whatever symbolic links it holds.
//
// It needs no locks, which network file systems often do not share between machines, only atomic rename and link.
package dirstore
