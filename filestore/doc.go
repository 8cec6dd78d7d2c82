// Package filestore keeps files with the same semantics wherever they are: on a directory that all nodes share (dirstore) or in memory (memstore),
// and proves to a cluster that its members really see one store.
//
// It is not a file system: no append in place, no locks, no directories as such, only objects under keys.
//
// # Use
//
// Open a store with the package that makes it, and give its Store to a Proof where several nodes use it:
//
//	store, err := dirstore.Open(ctx, dirstore.Config{Dir: "/mnt/nas/app"})
//	obj, err := store.Put(ctx, "uploads/42/cat.png", r, &filestore.PutOptions{ContentType: "image/png"})
//	r, obj, err := store.Get(ctx, "uploads/42/cat.png", nil)
//
// A Driver is what an implementer writes, a Store what a user has: the driver with checked keys and what can be built on any of them. The conformance
// suite of filestoretest tests every driver, yours too.
//
// # Guarantees
//
//   - Put is atomic and durable: once it returned, the whole object is there, also after a crash; before that, readers have the old one. A reader
//     goes on reading the version that it opened. A failed, cancelled or crashed Put changes nothing.
//   - IfAbsent: of any number of calls at once, on any nodes, one wins.
//   - Size and SHA256, when given, are checked before the object becomes visible.
//   - The same keys are valid in every store, and no key leaves it. On dirstore this holds against symbolic links planted in the directory too.
//   - The same fault has the same error: fs.ErrNotExist, fs.ErrExist, ErrPrecondition, ErrInvalidKey, ErrCorrupt, errors.ErrUnsupported.
//   - Attributes (SHA256, content type, metadata) belong to exactly the content they come with, or are absent.
//   - Proof: two private directories, a copy of the directory, an unmounted disk, a read-only or full one are found when a member joins or at the
//     next probe; until the first probes are done, Check says not ready. A store ID is never made when the cluster has one.
//
// # Not guaranteed
//
//   - Move is not atomic: a crash may leave both objects.
//   - List may miss, or still show, what changes while it runs.
//   - IfMatch is for stores that have it (see Capabilities): a shared directory has none.
//   - A key below an object, or above other objects, is refused with ErrInvalidKey: a directory cannot hold both. Where two such keys are put at
//     the same moment, one of them fails.
//
// # Failures
//
// A full disk, a read-only mount or a failing fsync is an error of Put, with the old object intact; a crash of the process leaves at most a file in
// .nines/tmp, which Open removes after a day. A member that does not answer a probe is a warning: whether it lives is the cluster's business.
//
// # Lifecycle and concurrency
//
// Everything is safe for concurrent use. A Store has Close. A Proof has New, Run and Shutdown; Run returns nil when its context ends or Shutdown is
// called. The context of Run is the hard stop: not the one of signal.NotifyContext.
//
// # Limits
//
// Keys have at most 1,024 bytes, segments 200, metadata 2 KiB. Objects are streamed: memory does not grow with their size on dirstore; memstore holds
// them whole.
//
// # Not yet
//
// S3, Append, Zip, signed links, Copy between stores, the prefix and fault wrappers, the mirror of extensions, metrics. Cancelling a Put takes effect at
// the next read of the source.
package filestore
