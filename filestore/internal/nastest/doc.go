// Package nastest mounts a directory the way a network file system shows it: with caches that other machines' changes do not reach at once, with
// errors and with slowness. It needs FUSE.
package nastest
