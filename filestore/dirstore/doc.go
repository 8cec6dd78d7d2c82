// Package dirstore keeps a filestore.Store in a directory: a local one, or a mount that all nodes share.
//
// An object is a file named by its key, so files that are there already are objects too. A new content is written to a temporary file below
// .nines/tmp on the same file system, made durable, and then given its name by rename, or by link(2) where it must be the first; the folders are made
// durable as well. Attributes are kept below .nines/meta, in a file named by the identity of the content's file, so that they belong to exactly
// that content or are not found. No path leaves the directory, whatever symbolic links it holds.
//
// It needs no locks, which network file systems often do not share between machines, only atomic rename and link. Caches of such file systems are
// reckoned with: an object is opened, which asks the server, and never believed from its attributes alone; a folder that another
// machine removed is made again; a link that the server made and answered twice counts as made.
//
// What is guaranteed, what is not, and what failures look like is in the documentation of filestore.
package dirstore
