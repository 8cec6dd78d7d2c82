package main

import (
	"errors"
	"io"

	"github.com/hashicorp/memberlist"
)

// memberlist: SendReliable, without compression, which is faster for such messages.

type linkDelegate struct{ take func([]byte) }

func (d linkDelegate) NodeMeta(int) []byte             { return nil }
func (d linkDelegate) NotifyMsg(b []byte)              { d.take(b) }
func (d linkDelegate) GetBroadcasts(int, int) [][]byte { return nil }
func (d linkDelegate) LocalState(bool) []byte          { return nil }
func (d linkDelegate) MergeRemoteState([]byte, bool)   {}

func linkMemberlist(name string, take func([]byte)) (*memberlist.Memberlist, error) {
	cfg := memberlist.DefaultLANConfig()
	cfg.Name, cfg.BindAddr, cfg.BindPort = name, "127.0.0.1", 0
	cfg.EnableCompression = false
	cfg.LogOutput = io.Discard
	cfg.Delegate = linkDelegate{take}
	return memberlist.Create(cfg)
}

func init() {
	linkRole("link.receiver.memberlist", func(job linkJob, say func(any)) error {
		m := newLinkMeter(job)
		l, err := linkMemberlist("receiver", m.take)
		if err != nil {
			return err
		}
		say(l.LocalNode().Address())
		say(m.result())
		rest()
		return nil
	})
	linkRole("link.sender.memberlist", func(job linkJob, say func(any)) error {
		l, err := linkMemberlist("sender", func([]byte) {})
		if err != nil {
			return err
		}
		if _, err := l.Join([]string{job.Addr}); err != nil {
			return err
		}
		for _, node := range l.Members() {
			if node.Name == "receiver" {
				if err := linkSend(job, func(b []byte) error { return l.SendReliable(node, b) }); err != nil {
					return err
				}
				rest()
			}
		}
		return errors.New("the receiver is not a member")
	})
}
