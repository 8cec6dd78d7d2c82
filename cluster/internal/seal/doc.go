// Package seal protects what the processes of one cluster say to each other: datagrams are sealed one by one, streams once at their
// beginning. Both bind the name of the cluster in, so that two clusters that share a key do not mix.
//
// # Keys
//
// A key has 32 bytes. The first key of a list seals, all of them open, so that a key is replaced while the cluster runs: add the new one
// last everywhere, then put it first everywhere, then remove the old one. An empty list means no protection: datagrams and streams are
// plain, only the cluster's name is compared. Working keys are derived from a key for each use, none is used twice.
//
// # Datagrams
//
// AES-256-GCM. Sender, process and sequence are authenticated. A process draws a fresh salt when it makes its Datagrams, and its working
// key depends on it: the sequence alone is then the nonce, and a process that is started again under the same name never repeats one.
// Datagrams counts the sequence itself, because a caller that repeated one would give the key away. A receiver keeps a window of 1024
// sequences per sender; what was taken before, is older than the window, or comes from an earlier process of the same name is dropped.
// Nothing below the first sequence that is seen of a sender is taken, so recorded traffic is no use against a process that has heard the
// sender once; against one that has not, it is worth what the newest recorded datagram was worth.
//
// # Streams
//
// TLS 1.3 with a throw-away certificate for each process; inside, both sides prove a key by HMAC-SHA256 over a value that only the two
// ends of this very TLS connection know, with their role and the cluster's name. So neither a stranger nor somebody in the middle gets
// through, and certificates need no care. A wrong key or a wrong cluster is an error that says which of the two.
//
// With an Identity both sides also show a certificate of given roots, for their name or one of a list, and streams are mutual TLS: a key alone is
// not enough then. Certificates are judged after the TLS handshake, so that both sides learn why one is refused.
//
// SetKeys changes the keys of what is open: datagrams at once, streams when they are made; Trusts tells which of those that are open were made with a
// key that is gone.
package seal
