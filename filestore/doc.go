// Package filestore keeps files with the same semantics wherever they are: on a directory that all nodes share (dirstore), in a bucket of S3 or of
// a server that speaks it (s3store), or in memory (memstore), and proves to a cluster that its members really see one store.
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
// suite of filestoretest tests every driver, yours too; its Faults break any store, for your tests. Copy moves a whole store to another one
// and verifies it; mirror keeps a directory on each node as a prefix of the store says; filestoreprom has the metrics, Observe tells of each
// operation. The Examples show each of them.
//
// Exports and compliance reports belong into a store of their own, with its own credentials, part size and lifetime: open a second store and
// give it to who writes them. Where one bucket or directory is enough, Store.Sub gives a view below a prefix that cannot reach the rest.
//
// # Semantics by driver
//
//	                        dirstore                      s3store                          memstore
//	Put is atomic           rename, link                  one request, or the last one     yes
//	Put is durable          fsync of file, attributes     when the server has answered     in memory
//	                        and folder
//	IfAbsent                where the file system has     where the server obeys it        yes
//	                        hard links                    (tried out by Open)
//	IfMatch                 never                         likewise                         yes
//	key below an object     ErrInvalidKey                 as the server: FlatKeys          ErrInvalidKey
//	reader's version        kept; on NFS lost when        kept, while the connection       kept
//	                        another machine deletes it    lasts
//	SHA256                  always of what was Put        of one part, or when it was      always
//	                                                      told; not after Append
//	attributes in List      all                           size, version and time           all
//	Copy, Append            read and write                by the server (Append from       read and write
//	                                                      5 MiB on)
//	SignedURL               no                            yes                              no
//	memory of a Put         1 MiB                         two parts, 16 MiB                the object
//	largest object          the disk                      10,000 parts, 5 TiB at most      the memory
//	Version                 another with each Put         another with each content        another with each Put
//	Modified                the file's time               the server's                     the process's
//
// # Guarantees
//
//   - Put is atomic and durable: once it returned, the whole object is there, also after a crash; before that, readers have the old one. No reader
//     ever sees a torn or empty object. A failed, cancelled or crashed Put changes nothing and blocks nothing. (One exception: where the folder's
//     own fsync fails after the name was given, Put returns the error and the new object, whole, may be seen.)
//   - A source that ends with an error of its own, io.ErrUnexpectedEOF too, stores nothing: a request's body whose client went away is no file.
//   - IfAbsent: of any number of calls at once, on any nodes, one wins, and knows it. IfMatch: of any number, one.
//   - Size and SHA256, when given, are checked before the object becomes visible.
//   - The same keys are valid in every store, and no key leaves it. On dirstore this holds against symbolic links planted in the directory too:
//     what leads through one is no object.
//   - The same fault has the same error: fs.ErrNotExist, fs.ErrExist, ErrPrecondition, ErrInvalidKey, ErrCorrupt, errors.ErrUnsupported.
//   - Attributes (SHA256, content type, metadata) belong to exactly the content they come with, or are absent.
//   - A call ends within 100 ms of its context, though its source, the server or the disk stands still. What a hung disk had begun is removed when
//     it goes on.
//   - Copy reads back what it wrote and compares sums; it goes on where it was interrupted, and tells of every object that failed.
//   - Proof: two private directories, a copy of the directory with the same ID, an unmounted disk, a read-only or full one, another bucket or
//     prefix, two servers without replication are found before a newcomer was ever ready, a mount that caches for too long after ten seconds, also
//     before; what goes wrong later, at the next probe. A newcomer with the wrong store does not stop the members that work. A store ID is never
//     made when the cluster has one.
//
// # Not guaranteed
//
//   - Move is not atomic: a crash may leave both objects.
//   - List may miss, or still show, what changes while it runs.
//   - Append by two calls at once loses one of them where the store has no IfMatch. Let one node at a time append to a key there, and tell
//     AppendOptions.At.
//   - Where two keys of which one is below the other are put at the same moment, one of them fails.
//   - That a storage keeps its word: a disk that lies about fsync, a server that confirms what it has not stored.
//   - Stat on a network file system may be as old as its attribute cache, three seconds by default on NFS. Get is not: opening asks the server.
//
// # Failures
//
//	what fails                           what the caller sees
//	disk full, read-only, I/O error      an error of the call with the system's cause; the old object as it was
//	disk or mount hangs                  calls end with their context; Proof.Check is red after 5 s
//	process is killed                    old object or new one; at most a file in .nines/tmp, removed by an Open after a day
//	S3 server away, frozen               s3store.ErrUnreachable after Config.RequestTimeout and its retries
//	keys wrong, bucket missing           s3store.ErrCredentials, ErrBucket, from Open
//	request damaged on its way           ErrCorrupt; nothing is stored
//	answer lost, request sent again      the winner of IfAbsent still knows that it won
//	answer ends early                    io.ErrUnexpectedEOF from Read
//	stream does not fit into S3's parts  s3store.ErrTooLarge; nothing is stored
//	another member has another store     Proof.Check is red there, and a warning here
//	this member's store is lost          Proof.Check is red here, and a warning there
//	two proven members disagree          red on the side that fewer see; on both where there is no such side
//	a member does not answer             a warning: whether it lives is the cluster's business
//	clocks differ                        nothing: no decision rests on them, but for the removal of rests a day old
//
// # Lifecycle and concurrency
//
// Everything is safe for concurrent use. A Store has Close. A Proof has New, Run and Shutdown; Run returns nil when its context ends or Shutdown is
// called. The context of Run is the hard stop: not the one of signal.NotifyContext. Readiness waits for Proof.Check: a newcomer is ready when
// every member that answers has told it that both see one store, which takes two writes and three questions.
//
// A Put reads its source on another goroutine; when it returns because its context ended, one Read may still be going on.
//
// # Limits
//
// Keys have at most 1,024 bytes, segments 200, metadata 1,900 bytes. Listing takes constant memory, tested with 100,000 objects in one folder; streams
// do too, tested with 5 GiB. On a directory, folders of a million files are the file system's business: spread keys over folders. Mount NFS
// with hard, and the same user on all nodes; noac is not needed. Interrupted uploads in parts stay in a bucket until a lifecycle rule
// aborts them. Attributes whose Put crashed before it gave the name stay below .nines/meta, a few hundred bytes each.
//
// # Not yet
//
// Encryption on this side of the storage. Signed links of dirstore. A lock or compare-and-set on a shared directory.
package filestore
