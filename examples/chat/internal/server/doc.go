// Package server is the chat server: its configuration, its HTTP API and the wiring of the packages that make it highly available.
//
// Load reads a configuration file with the sections of the reference server (ServiceSettings, ClusterSettings, SqlSettings, FileSettings,
// JobSettings, LogSettings, DataRetentionSettings) and applies overrides from the environment: the setting ClusterSettings.GossipPort is
// NINES_CLUSTERSETTINGS_GOSSIPPORT, lists are separated by spaces. Settings of the reference server that mean nothing here are
// accepted and logged once; a setting that neither knows is refused with the nearest known name.
//
// Run checks all that can be checked before anything is created, opens database and file store, starts the parts and serves until it is
// asked to stop. It then ends in this order: not ready and peers told (node.Drain), jobs, requests, sockets, leadership, file proof, node,
// database.
//
// # What the server promises
//
//   - A post that was answered with 200 or 201 is in the database, and every socket of its room is shown it or told of a gap. It appears once,
//     however often the client repeats it with the same ID; repeats after four minutes are answered and not shown again.
//   - A post that was answered with 503 may or may not have been taken: the client repeats it with the same ID.
//   - GET /api/v4/system/ping is 200 only while the server takes work; else 503 with the reason.
//   - A gap that a socket is told of is filled from the table. What a client has already may be in it again: it knows it by the ID.
//   - What somebody has written, the same browser's reads of the next 5 s see, on every server, although replicas trail.
//   - Bad settings end Run with one sentence that names setting, value (without password) and remedy, before anything is created.
//
// # Not promised
//
// History is in the order in which the database took the messages; sockets are in the order of the room's home. Both hold the same messages, and
// two messages posted at the same moment on different nodes may stand in either order in each.
//
// # Limits
//
// A post has at most 4,000 characters, a JSON body 64 KiB, a file MaxFileSize. At most 512 requests are served at once; one more is answered
// with 503 and Retry-After.
//
// # Not yet
//
// S3 storage, reload of the configuration, serve -role jobs, drain and bundle from the command line.
package server
