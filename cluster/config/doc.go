// Package config keeps one configuration on every node of a cluster: read from a file and the environment, compared by hash, changed on all nodes
// at once.
//
// It is for what an operator sets: addresses, limits, switches. The values are a struct of the user's own, and Get is a pointer to it. It is not a
// key-value store: each change is of the whole, a few a day, and every node has all of it. It is not a vault: secrets stand in the file.
//
// # Use
//
// Open a Store of your struct, make the Node of what it says, Attach the Store to the Node, and Run both. The fields of the struct are the
// sections, and their fields the settings, named as in JSON and found without regard to case. A tag says more of a section or a setting, words
// separated by commas; what holds for a section holds for its settings:
//
//	`nines:"local"`    of this node alone: not hashed, not compared, not sent, kept where it is
//	`nines:"secret"`   never shown, hashed or logged; compared under the cluster's keys
//	`nines:"restart"`  read at the start of the process only; Check names it when it has changed since
//	`nines:"live"`     the default: holds at once. Takes a setting out of a section with restart
//
// A variable of the environment overrides one setting: EnvPrefix, section and setting in capitals (CHAT_SQLSETTINGS_DATASOURCE). Lists of texts are
// separated by spaces, durations written as 1m30s, all else as JSON. See the Example.
//
// # Guarantees
//
//   - Defaults, the file, the environment: the later is the stronger. What the environment sets is hashed, never written into the file, and
//     never changed by Save.
//   - Unknown names, in the file or the environment, are faults that name the nearest valid one; all faults are told at once. A file
//     with a fault, or one that Validate refuses, never holds: what held before still does.
//   - The hash is SHA-256 over canonical JSON (sorted, no space) of all effective values but local ones, with a mark in place of each secret: two
//     nodes have the same hash exactly when they do the same, however their files are written. Secrets are compared by HMAC under keys derived
//     from the cluster's: no hash tells anything of them to whoever has no key. While keys are replaced, those that both rings have count.
//   - A member with other values is red in the Status of every other, with the sections that differ: from its tags, without asking it. It
//     does not stop anybody from serving.
//   - Save changes all nodes or none where it can know beforehand: a member that is read only, does not know a setting or whose Validate refuses
//     makes it fail with nothing changed. When it returns nil every live member has the new values.
//   - Versions only grow. Of two Saves at the same time one is made on top of the other: none is lost, and none holds twice. Who joins later,
//     or was away, catches up. After a partition with Saves on both sides one side's wins everywhere (the higher number; of equal numbers
//     the younger process's), and the log of those who change says so.
//   - The file is replaced whole: temporary file, fsync, rename, fsync of the directory. Its mode, links to it, accepted names and local settings stay; what
//     it said before stays beside it as .previous.
//   - Get is one atomic load. What it returned never changes.
//
// # Not guaranteed
//
//   - That all nodes change in the same instant, or that a member which fails during a Save has it before it is back.
//   - That a Save in the smaller part of a partition lasts: there is no quorum.
//   - That the file still is what holds: whoever edits it has to Reload, on each node. What is edited and not reloaded is overwritten by the next
//     Save (and stays as .previous). A node that comes back with an older version takes the newer one, whatever was edited meanwhile.
//   - Without keys (InsecureNoKeys) secrets are not compared, and travel in the clear.
//
// # Failures
//
//	the file cannot be read, or is at fault   Open fails; Reload fails, the old values hold, Check warns
//	the file cannot be written                Save fails; on another node it is ErrRefused, and nothing has changed. A node that cannot
//	                                          write what it has to catch up with keeps its old values, warns, is red elsewhere, and tries
//	                                          again each 30 s
//	a member dies during Save                 it is not waited for
//	a member hangs                            waited for until it is declared failed, or ctx ends: *cluster.PeersError; it catches up
//	this node crashes during Save             before its file is written: nothing happened; after: the others take it from here when it is back,
//	                                          or somebody else's next Save, which has the same number, may win
//	two nodes with different files            red on both until one is reloaded or saved
//	a read-only node behind the others        Check warns, with what to do
//
// # Lifecycle and concurrency
//
// Open starts nothing. Attach before the Node runs, so that its first sight has the tags. Run owns two goroutines and returns nil when it is
// stopped; its ctx is the hard stop, not that of signal.NotifyContext. Shutdown takes the Store off its Node; Get answers as before. OnChange functions run
// on Run's goroutine, one at a time; Watch on the caller's. fn of Save and Validate run on the goroutine that asks, or a message's: they must not
// wait for this Store. One Store a Node.
//
// # Limits
//
// The whole configuration travels in one message (MaxMessage). Up to 39 sections are told apart in Status, and 7 with secrets; those beyond
// stand together. Three of the Node's 16 tags are used. Pointers to structs, lists and maps are one setting each.
//
// # Not yet
//
// Keeping the configuration in the database, history of versions, watching the file.
package config
