// Package mirror keeps a directory on each node as a filestore.Store says: extensions that are installed on one node reach all of them.
//
// It runs no extension and knows no format but that of the archive: it brings files and tells where they are.
//
// # Use
//
// Each node has a Mirror with a directory of its own. Install, Remove and SetEnabled work on any of them; List says what this node has:
//
//	m, err := mirror.New(mirror.Config{Store: store, Cluster: node, Dir: "/var/lib/app/extensions"})
//	go m.Run(ctx) // in the group of the other parts
//	_, err = m.Install(ctx, "weather", "1.4.0", bundle, nil)
//	err = m.SetEnabled(ctx, "weather", true)
//
// A bundle is a tar archive, compressed with gzip. Below Dir there is for each extension a symbolic link of its ID to the folder with its files, for
// programs that do not ask List.
//
// # Guarantees
//
//   - An extension appears on a node whole or not at all, also after a crash; an upgrade changes from one version to the next in one step. Who
//     opened a file of the old version keeps it, and the old folder stays for a minute.
//   - Only regular files and folders below the extension's own are unpacked, within the bounds of Config. An archive with anything else — a name
//     that leads elsewhere, a link, a device, too many or too large files, a name twice — is refused as a whole, by Install before it reaches
//     the store and by every node again.
//   - What is unpacked has the SHA-256 of what was installed and, with Config.Keys, the signature of one of them over ID, version and sum.
//   - A node that was away catches up when it is back. All nodes have an installation after Config.Interval at the latest; with a Cluster at once.
//   - An upgrade keeps the extension enabled or disabled as it was. One that is installed for the first time, or again after it was removed, is
//     disabled.
//   - While the store is away, each node goes on with what it has, also after a restart.
//
// # Not guaranteed
//
// Nodes do not change in the same moment. Of two installations of one ID at the same time one wins, whole; on a store without IfMatch the
// loser is not told. A signature does not keep who can write to the store from putting back an older, signed version. Nobody looks after the
// files in Dir once they are there: what changes them by other means is not noticed.
//
// # Failures
//
//	what fails                         what is seen
//	the store cannot be reached        Check warns, List keeps what is there, and it is tried again
//	a bundle is damaged or evil        Check warns and names it; the version before stays in use
//	Dir is full or read-only           Check warns; the version before stays in use
//	crash in the middle of Install     the old version or the new one on all nodes; rests are removed by the next Install or Remove
//	crash in the middle of unpacking   the rest is removed at the next start
//
// # Lifecycle and concurrency
//
// New starts nothing. Run owns the goroutines and returns nil when its context ends or Shutdown is called; its context is the hard stop. Install,
// Remove and SetEnabled work before Run too. Everything is safe for concurrent use. One Mirror, in one process, owns a Dir.
//
// # Limits
//
// Bundles up to 256 MiB, 10,000 files and 1 GiB unpacked, unless Config says otherwise. IDs have 1 to 64 of a-z, 0-9, ".", "_" and "-".
package mirror
