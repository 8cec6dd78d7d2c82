package main

import (
	"errors"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// NATS: the server embedded in a process of its own, publisher and subscriber beside it, core messages, no bound on what the
// subscriber may have pending.

func init() {
	linkRole("link.server.nats", func(job linkJob, say func(any)) error {
		s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true})
		if err != nil {
			return err
		}
		s.Start()
		if !s.ReadyForConnections(10 * time.Second) {
			return errors.New("the server does not start")
		}
		say(s.ClientURL())
		rest()
		return nil
	})
	linkRole("link.receiver.nats", func(job linkJob, say func(any)) error {
		nc, err := nats.Connect(job.Addr)
		if err != nil {
			return err
		}
		m := newLinkMeter(job)
		sub, err := nc.Subscribe(linkTopic, func(msg *nats.Msg) { m.take(msg.Data) })
		if err != nil {
			return err
		}
		if err := sub.SetPendingLimits(-1, -1); err != nil {
			return err
		}
		if err := nc.Flush(); err != nil {
			return err
		}
		say(job.Addr)
		say(m.result())
		rest()
		return nil
	})
	linkRole("link.sender.nats", func(job linkJob, say func(any)) error {
		nc, err := nats.Connect(job.Addr)
		if err != nil {
			return err
		}
		if err := linkSend(job, func(b []byte) error { return nc.Publish(linkTopic, b) }); err != nil {
			return err
		}
		if err := nc.Flush(); err != nil {
			return err
		}
		rest()
		return nil
	})
}
