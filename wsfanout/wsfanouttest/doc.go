// Package wsfanouttest is for tests of programs that use wsfanout: hubs behind real listeners, listeners that write down what they are shown, and a
// cluster in memory with faults.
//
// [Start] runs one hub; with a [Network] and [Network.Join] several of them make a cluster, in which processes are killed, paused and cut off from
// each other. [Listen] is a client. [RunTransport] is the conformance suite of wsfanout.Transport: who writes another transport runs it.
//
// Nothing of it is for production: the network keeps everything that it has not delivered.
package wsfanouttest
